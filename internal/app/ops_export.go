package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/tarexport"
	"drover/internal/volume"
)

// ExportOptions of Export.
type ExportOptions struct {
	Snapshot string    // id, prefix of one, or "latest": the head's
	File     string    // written whole or not at all; "": to Out
	Out      io.Writer // without File
	Progress func(Progress)
}

// ExportResult is what an export wrote.
type ExportResult struct {
	Snapshot string  `json:"snapshot"`
	File     string  `json:"file,omitempty"`
	Files    int64   `json:"files"`
	Dirs     int64   `json:"dirs"`
	Bytes    int64   `json:"bytes"` // of files' content
	Seconds  float64 `json:"seconds"`
}

// Export writes a snapshot as a tar archive. Errors: ErrIncomplete, with the path.
func (o *Ops) Export(ctx context.Context, opt ExportOptions) (res ExportResult, err error) {
	v, err := o.open(ctx)
	if err != nil {
		return ExportResult{}, err
	}
	err = o.held(ctx, v, func(ctx context.Context) error {
		if opt.File == "" {
			res, err = o.export(ctx, v, opt, opt.Out)
			return err
		}
		return writeWhole(opt.File, func(out io.Writer) error {
			res, err = o.export(ctx, v, opt, out)
			return err
		})
	})
	return res, err
}

func (o *Ops) export(ctx context.Context, v *volume.Volume, opt ExportOptions, out io.Writer) (ExportResult, error) {
	start := time.Now()
	id, sn, err := o.find(ctx, v, opt.Snapshot)
	if err != nil {
		return ExportResult{}, err
	}
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return ExportResult{}, fmt.Errorf("load index: %w", err)
	}
	buffered := bufio.NewWriterSize(out, 1<<20)
	done, err := tarexport.Run(ctx, v.Repo, sn, buffered, tarexport.Options{Progress: counted("export", opt.Progress, sn)})
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return ExportResult{}, incomplete("export", err)
	}
	return ExportResult{
		Snapshot: id.String(), File: opt.File, Files: int64(done.Files), Dirs: int64(done.Dirs), Bytes: int64(done.Bytes),
		Seconds: time.Since(start).Seconds(),
	}, nil
}

// incomplete adds ErrIncomplete to an error that says that a blob is lost.
func incomplete(what string, err error) error {
	if errors.Is(err, repo.ErrBlobNotFound) || errors.Is(err, repo.ErrDamaged) || errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("%s: %w: %w", what, ErrIncomplete, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// writeWhole has the file at name written by f, and puts it there only when all of
// it is on the disk.
func writeWhole(name string, f func(io.Writer) error) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is no regular file, so it cannot be replaced; write to standard output instead", name)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.part")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	err = f(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
