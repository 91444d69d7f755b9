//go:build bench

package bench

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// partSize is of a multipart upload, and of what is asked for at once.
const partSize = 16 << 20

// tarTool is the least that a backup can be: one stream into one object, with
// nothing to find, to compare or to check.
func (b *bed) tarTool() tool {
	for _, program := range []string{"tar", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			b.t.Fatalf("%v: install it (Debian: apt-get install %s)", err, program)
		}
	}
	client, err := minio.New(strings.TrimPrefix(b.endpoint, "http://"), &minio.Options{
		Creds:  credentials.NewStaticV4(b.s3.AccessKey, b.s3.SecretKey, ""),
		Region: b.s3.Region,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return tool{
		name: "tar|zstd", prepare: nothing, arrive: nothing,
		backup: func(prefix, path string) took {
			cmd := exec.CommandContext(b.t.Context(), "sh", "-c", `tar -cf - -C / "./$1" | zstd -1 -q -c`, "sh", path)
			out, err := cmd.StdoutPipe()
			b.must(err)
			return b.piped(cmd, func() error {
				_, err := client.PutObject(b.t.Context(), b.s3.Bucket, "tar-"+prefix, out, -1,
					minio.PutObjectOptions{PartSize: partSize, NumThreads: 4, ConcurrentStreamParts: true})
				return err
			})
		},
		restore: func(prefix, _, target string) took {
			b.must(os.MkdirAll(target, 0o755))
			cmd := exec.CommandContext(b.t.Context(), "sh", "-c", `zstd -d -q -c | tar -xf - -C "$1"`, "sh", target)
			in, err := cmd.StdinPipe()
			b.must(err)
			return b.piped(cmd, func() error {
				object, err := client.GetObject(b.t.Context(), b.s3.Bucket, "tar-"+prefix, minio.GetObjectOptions{})
				if err != nil {
					return err
				}
				defer object.Close()
				if _, err := io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{object}, make([]byte, 1<<20)); err != nil {
					return err
				}
				return in.Close()
			})
		},
	}
}

// piped times a command together with what moves its bytes.
func (b *bed) piped(cmd *exec.Cmd, move func() error) took {
	b.t.Helper()
	cmd.Stderr = os.Stderr
	before, start := ownCPU(), time.Now()
	b.must(cmd.Start())
	b.must(move())
	b.must(cmd.Wait())
	wall, cpu := time.Since(start), ownCPU()-before
	return took{wall, cpu + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
