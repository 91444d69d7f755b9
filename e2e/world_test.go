//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/dockertest"
	"drover/internal/testkit/gotool"
)

const (
	// short is the lease's TTL of stories that wait for one to run out, and long
	// that of stories which show that nobody waited for it.
	short = 3 * time.Second
	long  = 60 * time.Second

	// takeover is how long a standby may need: a TTL of silence, seen on a busy
	// machine, then claim, restore and start.
	takeover = short + 25*time.Second

	// soon bounds what needs no TTL to run out.
	soon = 25 * time.Second

	repository = "/srv/git/project.git"
)

// world is where a story takes place: a bucket, a network that leads to it, a
// network where clients are, and one client.
type world struct {
	t      *testing.T
	run    *dockertest.Run
	front  *dockertest.Network
	back   *dockertest.Network
	s3     *dockertest.Container
	client *dockertest.Container
	env    map[string]string

	image   string   // of the instances
	job     string   // what its main job's command line holds
	options []string // of docker create
}

// newWorld makes a world whose servers have that TTL and those further variables.
func newWorld(t *testing.T, ttl time.Duration, env map[string]string) *world {
	t.Helper()
	return newWorldOf(t, serverImage(t), ttl, env)
}

// newWorldOf is newWorld for another application than the git server; the client is of
// the same image.
func newWorldOf(t *testing.T, image string, ttl time.Duration, env map[string]string) *world {
	t.Helper()
	run := dockertest.New(t)
	w := &world{t: t, run: run, front: run.Network("front"), back: run.Network("back"), image: image, job: "daemon"}
	access, secret := "drover-e2e", rand.Text()
	w.s3 = run.Start(dockertest.Spec{
		Name: "s3", Image: storeImage(t), Networks: []*dockertest.Network{w.back},
		Env: map[string]string{"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
	})
	w.client = run.Start(dockertest.Spec{
		Name: "client", Image: image, Networks: []*dockertest.Network{w.front},
		Entrypoint: "sleep", Args: []string{"infinity"},
	})
	w.env = map[string]string{
		"DROVER_STORE":          "s3://state/review?endpoint=http://s3:9000",
		"DROVER_PASSWORD":       rand.Text(),
		"DROVER_TTL":            ttl.String(),
		"AWS_ACCESS_KEY_ID":     access,
		"AWS_SECRET_ACCESS_KEY": secret,
	}
	maps.Copy(w.env, env)
	w.client.NoVolumes(t)
	return w
}

// server is one instance of the application.
type server struct {
	*dockertest.Container
	w *world
}

// server starts an instance. It does not wait for anything.
func (w *world) server(name string) *server {
	w.t.Helper()
	s := &server{w: w, Container: w.run.Start(dockertest.Spec{
		Name: name, Image: w.image, Networks: []*dockertest.Network{w.front, w.back}, Env: w.env, Options: w.options,
	})}
	s.NoVolumes(w.t)
	return s
}

// holder starts an instance that is alone, and waits until it serves.
func (w *world) holder(name string) *server {
	w.t.Helper()
	s := w.server(name)
	s.awaitServing(takeover)
	return s
}

// standby starts an instance beside a holder, and waits until it stands by.
func (w *world) standby(name string) *server {
	w.t.Helper()
	s := w.server(name)
	s.awaitRole("standby", soon)
	return s
}

// look asks the instance's agent.
func (s *server) look(ctx context.Context) (client.Status, error) {
	var st client.Status
	out, err := s.Exec(ctx, "drover", "status", "--json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, fmt.Errorf("status of %s: %w: %s", s.Name, err, out)
	}
	return st, nil
}

// status is look for when there must be an answer.
func (s *server) status() client.Status {
	s.w.t.Helper()
	st, err := s.look(s.w.t.Context())
	if err != nil {
		s.w.t.Fatal(err)
	}
	return st
}

// awaitStatus waits until the instance's status is as wanted.
func (s *server) awaitStatus(within time.Duration, what string, wanted func(client.Status) bool) client.Status {
	s.w.t.Helper()
	var st client.Status
	took := dockertest.Await(s.w.t, within, s.Name+" to be "+what, func(ctx context.Context) error {
		var err error
		if st, err = s.look(ctx); err != nil {
			return err
		}
		if !wanted(st) {
			return fmt.Errorf("it is %s, health %s %q, epoch %d, seq %d, pending %v", st.Role, st.Health, st.Message, st.Epoch, st.Seq, st.Pending)
		}
		return nil
	})
	s.w.t.Logf("%s is %s after %.1f s", s.Name, what, took.Seconds())
	return st
}

func (s *server) awaitRole(role string, within time.Duration) client.Status {
	s.w.t.Helper()
	return s.awaitStatus(within, role, func(st client.Status) bool { return st.Role == role })
}

// awaitServing waits until the instance holds the volume and answers git.
func (s *server) awaitServing(within time.Duration) client.Status {
	s.w.t.Helper()
	st := s.awaitRole("holder", within)
	dockertest.Await(s.w.t, soon, "git to answer at "+s.Name, func(ctx context.Context) error {
		_, err := s.w.client.Exec(ctx, "git", "ls-remote", s.url())
		return err
	})
	return st
}

// settled waits until one of two instances holds the volume and serves, and the
// other stands by.
func (w *world) settled(servers ...*server) (holder, standby *server) {
	w.t.Helper()
	dockertest.Await(w.t, takeover, "one holder and one standby", func(ctx context.Context) error {
		roles := map[string][]*server{}
		for _, s := range servers {
			st, err := s.look(ctx)
			if err != nil {
				return err
			}
			roles[st.Role] = append(roles[st.Role], s)
		}
		if len(roles["holder"]) != 1 || len(roles["standby"]) != 1 {
			return fmt.Errorf("%d holders, %d standbys", len(roles["holder"]), len(roles["standby"]))
		}
		holder, standby = roles["holder"][0], roles["standby"][0]
		return nil
	})
	holder.awaitServing(soon)
	return holder, standby
}

// jobRuns tells whether the application runs on the instance.
func (s *server) jobRuns() bool {
	s.w.t.Helper()
	return slices.ContainsFunc(s.Processes(), func(p string) bool { return strings.Contains(p, s.w.job) })
}

// awaitKilled waits until the application does not run on the instance.
func (s *server) awaitKilled(within time.Duration) {
	s.w.t.Helper()
	took := dockertest.Await(s.w.t, within, "the job of "+s.Name+" to be killed", func(context.Context) error {
		if s.jobRuns() {
			return fmt.Errorf("processes %q", s.Processes())
		}
		return nil
	})
	s.w.t.Logf("the job of %s is gone after %.1f s", s.Name, took.Seconds())
}

// url is where the instance serves its one repository.
func (s *server) url() string { return "git://" + s.Name + "/project.git" }

// sh runs a script in a container, with its arguments as $1 and so on.
func sh(c *dockertest.Container, script string, args ...string) string {
	return c.MustExec(append([]string{"sh", "-euc", script, "sh"}, args...)...)
}

// clone makes the client's working copy of what an instance serves.
func (w *world) clone(s *server, dir string) {
	w.t.Helper()
	sh(w.client, `
rm -rf "$2"; git clone --quiet "$1" "$2"; cd "$2"
git config user.name e2e; git config user.email e2e@example.org
git symbolic-ref HEAD refs/heads/main`, s.url(), dir)
}

// commit makes a commit in a working copy and returns its id.
func (w *world) commit(dir, text string) string {
	w.t.Helper()
	return strings.TrimSpace(sh(w.client, `
cd "$1"; echo "$2" >"file-$2"; git add .; git commit --quiet -m "$2"; git rev-parse HEAD`, dir, text))
}

// push pushes a commit of a working copy to an instance and returns its id.
// That it returns means: it is safe.
func (w *world) push(s *server, dir, text string) string {
	w.t.Helper()
	id := w.commit(dir, text)
	sh(w.client, `cd "$1"; timeout 60 git push --quiet "$2" main`, dir, s.url())
	return id
}

// pushing starts a push that is expected to wait.
func (w *world) pushing(s *server, dir, text string) (id string, push *dockertest.Running) {
	w.t.Helper()
	id = w.commit(dir, text)
	return id, w.client.Go("sh", "-euc", `cd "$1"; exec timeout 300 git push --quiet "$2" main`, "sh", dir, s.url())
}

// serves checks that an instance serves commits, by what a fresh clone has.
func (w *world) serves(s *server, ids ...string) {
	w.t.Helper()
	w.clone(s, "/check")
	for _, id := range ids {
		if _, err := w.client.Exec(w.t.Context(), "git", "-C", "/check", "merge-base", "--is-ancestor", id, "origin/main"); err != nil {
			w.t.Errorf("a clone from %s lacks the pushed commit %s: %v", s.Name, id, err)
		}
	}
}

// has tells whether an instance's own disk has a commit.
func (s *server) has(id string) bool {
	_, err := s.Exec(s.w.t.Context(), "git", "-C", repository, "cat-file", "-e", id)
	return err == nil
}

// snapshots lists the snapshots of the volume, as seen from an instance; of which one,
// flags may say.
func (s *server) snapshots(flags ...string) []client.Snapshot {
	s.w.t.Helper()
	var list []client.Snapshot
	out := s.MustExec(append([]string{"drover", "snapshots", "--all", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		s.w.t.Fatalf("drover snapshots: %v: %s", err, out)
	}
	return list
}

// awaitDiverged waits for a diverged snapshot and returns its id.
func (s *server) awaitDiverged(within time.Duration, flags ...string) string {
	s.w.t.Helper()
	var id string
	dockertest.Await(s.w.t, within, "a diverged snapshot", func(context.Context) error {
		list := s.snapshots(flags...)
		i := slices.IndexFunc(list, func(n client.Snapshot) bool { return n.Diverged && !n.Committed })
		if i < 0 {
			return fmt.Errorf("%d snapshots, none of them", len(list))
		}
		id = list[i].ID
		return nil
	})
	return id
}

// keeps checks that a snapshot has a commit, by restoring it beside the state.
func (s *server) keeps(snapshot, commit string) {
	s.w.t.Helper()
	dir := "/restored-" + snapshot[:8]
	s.MustExec("drover", "restore", snapshot, "--target", dir)
	if _, err := s.Exec(s.w.t.Context(), "git", "-C", dir+repository, "cat-file", "-e", commit); err != nil {
		s.w.t.Errorf("snapshot %s lacks the commit %s: %v", snapshot, commit, err)
	}
}

// images are built once for all stories.
var images struct {
	drover, server, shards, store sync.Once
}

// droverImage builds the project's own Dockerfile, from source.
// DROVER_E2E_IMAGE names an image to test instead.
func droverImage(t *testing.T) string {
	t.Helper()
	if name := os.Getenv("DROVER_E2E_IMAGE"); name != "" {
		return name
	}
	const tag = "drover-test/drover"
	images.drover.Do(func() {
		began := time.Now()
		dockertest.Build{
			Tag: tag, Context: "..",
			Args: map[string]string{"GO_IMAGE": dockertest.GoImage(t, ".."), "VERSION": "e2e"},
		}.Build(t)
		t.Logf("built the image in %.0f s", time.Since(began).Seconds())
	})
	return tag
}

// serverImage builds examples/git-server as it stands.
func serverImage(t *testing.T) string {
	t.Helper()
	return exampleImage(t, &images.server, "git-server")
}

// shardsImage builds examples/slots as it stands.
func shardsImage(t *testing.T) string {
	t.Helper()
	return exampleImage(t, &images.shards, "slots")
}

func exampleImage(t *testing.T, once *sync.Once, name string) string {
	t.Helper()
	tag := "drover-test/" + name
	once.Do(func() { buildExample(t, name, tag, nil) })
	return tag
}

// buildExample builds an example's image as it stands, with further arguments.
func buildExample(t *testing.T, name, tag string, args map[string]string) {
	t.Helper()
	all := map[string]string{"DROVER_IMAGE": droverImage(t)}
	maps.Copy(all, args)
	dockertest.Build{Tag: tag, Context: "../examples/" + name, Args: all}.Build(t)
}

// storeImage builds an image of a real S3 server, with one empty bucket.
func storeImage(t *testing.T) string {
	t.Helper()
	const tag = "drover-test/s3"
	images.store.Do(func() {
		dir := t.TempDir()
		copyProgram(t, gotool.Path(t, "versitygw"), filepath.Join(dir, "versitygw"))
		dockertest.Build{
			Tag: tag, Context: dir,
			Dockerfile: "FROM " + dockertest.BaseImage(t) + `
COPY versitygw /usr/bin/
RUN mkdir -p /data/state
# What Docker keeps layers in may have no extended attributes. Beside the files, in a folder of their own, versitygw changes
# ETags before contents: who reads meanwhile gets the old content as what the new ETag is of, and overwrites the new one.
VOLUME /data
ENV VGW_PORT=:9000 VGW_BACKEND=posix VGW_BACKEND_ARG=/data
ENTRYPOINT ["versitygw", "--quiet", "posix", "/data"]
`,
		}.Build(t)
	})
	return tag
}

// copyProgram copies an executable file.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// awaitHas waits until the instance's own disk has a commit.
func (s *server) awaitHas(id string) {
	s.w.t.Helper()
	dockertest.Await(s.w.t, soon, s.Name+" to receive a commit", func(context.Context) error {
		if !s.has(id) {
			return fmt.Errorf("it lacks %s", id)
		}
		return nil
	})
}

// describe writes a file of the repository that git itself leaves alone: no hook
// backs it up.
func (s *server) describe(text string) {
	s.w.t.Helper()
	sh(s.Container, `echo "$1" >`+repository+`/description`, text)
}

// described checks that the file that describe wrote says text.
func (s *server) described(text string) {
	s.w.t.Helper()
	if got := strings.TrimSpace(s.MustExec("cat", repository+"/description")); got != text {
		s.w.t.Errorf("on %s the file says %q, want %q", s.Name, got, text)
	}
}

// jobPID is the process that the instance's main job began with.
func (s *server) jobPID() int {
	s.w.t.Helper()
	for _, j := range s.status().Jobs {
		if j.Main {
			return j.PID
		}
	}
	s.w.t.Fatalf("%s shows no main job", s.Name)
	return 0
}

// contains is an error if text lacks part.
func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("no %q in %q", part, text)
	}
	return nil
}
