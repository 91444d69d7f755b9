//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/dockertest"
)

// TestComposeExample: the example's compose file, as its README has it: two
// instances, of which one serves, a push that returns, the loss of the one that
// had it, and a clone that has the commit.
func TestComposeExample(t *testing.T) {
	p := project(t, "git-server")
	p.Do("up", "--build", "--detach", "--scale", "git=2")
	holder := awaitHolder(t, p.Containers("git"))

	out := p.Do("run", "-T", "--rm", "client", "-euc", `
git clone --quiet git://git/project.git /copy; cd /copy
git config user.email me@example.org; git config user.name Me
echo hello >file; git add file; git commit --quiet -m one; git push --quiet; git rev-parse HEAD`)
	pushed := strings.TrimSpace(out)

	holder.Remove()
	awaitHolder(t, p.Containers("git"))
	p.Do("run", "-T", "--rm", "client", "-euc", `
git clone --quiet git://git/project.git /copy; git -C /copy merge-base --is-ancestor "$1" origin/main`, "sh", pushed)
}

// TestComposePostgres: examples/postgres, as its README has it: three members form a cluster, a table
// is made through whoever leads, its container is removed, and another one leads and has it.
func TestComposePostgres(t *testing.T) {
	p := project(t, "postgres")
	p.Do("up", "--build", "--detach", "--scale", "postgres=3")
	primary := awaitMembers(t, p.Containers("postgres"), 3)
	sql := func(c *dockertest.Container, text string) string {
		return strings.TrimSpace(sh(c, `PGPASSWORD=$(cat /run/secrets/database) psql -X -q -At -h 127.0.0.1 -U postgres postgres -c "$1"`, text))
	}
	sql(primary, "CREATE TABLE t AS SELECT 1 AS one")
	primary.Remove()
	p.Do("up", "--detach", "--scale", "postgres=3")
	primary = awaitMembers(t, p.Containers("postgres"), 3)
	if got := sql(primary, "SELECT one FROM t"); got != "1" {
		t.Errorf("after the loss of the primary the table has %q", got)
	}
}

// awaitMembers waits until one of the containers leads so many that receive and are waited for, itself among them, and admits clients.
func awaitMembers(t *testing.T, containers []*dockertest.Container, n int) *dockertest.Container {
	t.Helper()
	var primary *dockertest.Container
	dockertest.Await(t, 4*time.Minute, "a cluster", func(ctx context.Context) error {
		primary = nil
		working := 0
		for _, c := range containers {
			out, err := c.Exec(ctx, "drover", "status", "--json")
			if err != nil {
				return err
			}
			var st client.Status
			if err := json.Unmarshal([]byte(out), &st); err != nil {
				return err
			}
			if st.Database == nil {
				continue
			}
			if st.Database.Role == "primary" {
				primary = c
			}
			if st.Database.Role == "primary" || st.Database.Role == "replica" && st.Database.Sync {
				working++
			}
		}
		if primary == nil || working != n {
			return fmt.Errorf("%d of %d work, a primary among them: %v", working, n, primary != nil)
		}
		return nil
	})
	return primary
}

// exampleSecret is the superuser's password in an example's database.
const exampleSecret = "another one of this test"

// project prepares the compose file of an example, as it stands; more are variables of the command.
func project(t *testing.T, example string, more ...string) *dockertest.Project {
	t.Helper()
	dir := filepath.Join(t.TempDir(), example)
	if err := os.CopyFS(dir, os.DirFS("../examples/"+example)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("a password of this test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(exampleSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dockertest.BaseImage(t)
	env := map[string]string{"DROVER_IMAGE": droverImage(t), "S3_IMAGE": storeImage(t)}
	for _, v := range more {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return dockertest.New(t).Compose(dir, env)
}

// awaitHolder waits for one of the instances to be the holder.
func awaitHolder(t *testing.T, instances []*dockertest.Container) *dockertest.Container {
	t.Helper()
	var holder *dockertest.Container
	dockertest.Await(t, takeover+soon, "a holder", func(ctx context.Context) error {
		var roles []string
		for _, c := range instances {
			st, err := (&server{Container: c}).look(ctx)
			if err != nil {
				return err
			}
			if st.Role == "holder" && len(st.Jobs) > 0 && st.Jobs[0].State == "running" {
				holder = c
				return nil
			}
			roles = append(roles, st.Role)
		}
		return fmt.Errorf("they are %s", strings.Join(roles, ", "))
	})
	return holder
}
