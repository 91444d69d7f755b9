package gitserver

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Repository is a bare repository of a server, and a clone from which is pushed.
type Repository struct {
	t     testing.TB
	s     *Server
	name  string
	bare  string
	clone string
}

// Gone as the content of a file removes it.
const Gone = "\x00gone"

// Create makes an empty repository.
func (s *Server) Create(t testing.TB, name string) *Repository {
	t.Helper()
	r := &Repository{t: t, s: s, name: name, bare: filepath.Join(s.root, name+".git"), clone: t.TempDir()}
	output(t, s, "", "init", "--quiet", "--bare", "--initial-branch=main", r.bare)
	output(t, s, r.bare, "config", "http.receivepack", "true")
	if s.o.Filter {
		output(t, s, r.bare, "config", "uploadpack.allowFilter", "true")
	}
	output(t, s, "", "init", "--quiet", "--initial-branch=main", r.clone)
	output(t, s, r.clone, "remote", "add", "origin", r.URL())
	return r
}

// URL is the repository's address.
func (r *Repository) URL() string { return r.s.server.URL + "/" + r.name + ".git" }

// Dir is the bare repository.
func (r *Repository) Dir() string { return r.bare }

// Git runs git in the clone.
func (r *Repository) Git(args ...string) string {
	r.t.Helper()
	return output(r.t, r.s, r.clone, args...)
}

// Push commits the files to the branch (beside those that it has), pushes it, and returns the commit.
func (r *Repository) Push(branch string, files map[string]string) string {
	r.t.Helper()
	commit := r.Commit(branch, files)
	r.Git("push", "--quiet", "origin", branch)
	return commit
}

// Commit is Push without pushing.
func (r *Repository) Commit(branch string, files map[string]string) string {
	r.t.Helper()
	r.checkout(branch)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(r.clone, name)
		if files[name] != Gone {
			write(r.t, path, []byte(files[name]))
		} else if err := os.Remove(path); err != nil {
			r.t.Fatal(err)
		}
	}
	r.Git("add", "--all")
	r.Git("commit", "--quiet", "--allow-empty", "--message=change")
	return r.Git("rev-parse", "HEAD")
}

// checkout goes to a branch; one that is not there begins without files.
func (r *Repository) checkout(branch string) {
	r.t.Helper()
	if r.Git("symbolic-ref", "--short", "HEAD") == branch {
		return
	}
	if r.Git("branch", "--list", branch) != "" {
		r.Git("checkout", "--quiet", branch)
		return
	}
	r.Git("switch", "--quiet", "--orphan", branch)
}

// Rewrite throws the last n commits of the branch away and pushes with force; it returns the commit that the
// branch is at then.
func (r *Repository) Rewrite(branch string, n string) string {
	r.t.Helper()
	r.checkout(branch)
	r.Git("reset", "--quiet", "--hard", "HEAD~"+n)
	r.Git("push", "--quiet", "--force", "origin", branch)
	return r.Git("rev-parse", "HEAD")
}

// Delete deletes a branch or tag on the server.
func (r *Repository) Delete(ref string) {
	r.t.Helper()
	r.Git("push", "--quiet", "--delete", "origin", ref)
}

// Tag pushes a tag of the branch's last commit.
func (r *Repository) Tag(branch, tag string, annotated bool) {
	r.t.Helper()
	args := []string{"tag", tag, branch}
	if annotated {
		args = []string{"tag", "--annotate", "--message=" + tag, tag, branch}
	}
	r.Git(args...)
	r.Git("push", "--quiet", "origin", "refs/tags/"+tag)
}
