package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/repo/fstest"
)

// BenchmarkRestore restores the sources of the Go toolchain (small files), and
// large files, from memory.
func BenchmarkRestore(b *testing.B) {
	for _, name := range []string{"small", "large"} {
		b.Run(name, func(b *testing.B) {
			src := filepath.Join(b.TempDir(), "vol")
			if name == "small" {
				fstest.Must(b, os.CopyFS(src, os.DirFS(filepath.Join(fstest.GoRoot(b), "src"))))
			} else {
				for i := range 4 {
					fstest.Write(b, fmt.Sprint(src, "/", i), string(fstest.Noise(64<<20)))
				}
			}
			r := sharedRepo(b)
			sn := backUp(b, r, src)
			base := b.TempDir()
			i := 0
			var bytes uint64
			for b.Loop() {
				i++
				res, err := Run(b.Context(), r, sn, Options{Target: fmt.Sprint(base, "/", i)})
				fstest.Must(b, err)
				bytes = res.Bytes
				b.StopTimer()
				fstest.Must(b, os.RemoveAll(fmt.Sprint(base, "/", i)))
				b.StartTimer()
			}
			b.SetBytes(int64(bytes))
		})
	}
}
