package supervise

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Missing finds out before anything is begun whether the job's command is nowhere:
// neither there now, nor at a place at or below one of the paths, which are still to
// be restored. The status and the error are those that starting it would have.
func (j Job) Missing(paths []string) (status int, err error) {
	var restored []string
	for _, p := range paths {
		restored = append(restored, resolve(p))
	}
	for _, place := range places(j.Command[0], j.Dir, j.Env) {
		place = resolve(place)
		if _, err := os.Lstat(place); err == nil { // whether it can be run is not asked here
			return 0, nil
		}
		if slices.ContainsFunc(restored, func(p string) bool {
			return place == p || strings.HasPrefix(place, strings.TrimSuffix(p, "/")+"/")
		}) {
			return 0, nil
		}
	}
	if strings.Contains(j.Command[0], "/") {
		err = &fs.PathError{Op: "find", Path: j.Command[0], Err: fs.ErrNotExist}
	} else {
		_, err = lookPath(j.Command[0], j.Dir, j.Env)
	}
	if err == nil {
		return 0, nil
	}
	return startStatus(err), err
}

// places lists where a command may lie, as absolute paths.
func places(command, dir string, env []string) []string {
	entries := []string{""}
	if !strings.Contains(command, "/") {
		entries = filepath.SplitList(pathOf(env))
	}
	var list []string
	for _, entry := range entries {
		place := filepath.Join(entry, command)
		if !filepath.IsAbs(place) {
			place = filepath.Join(dir, place)
		}
		if abs, err := filepath.Abs(place); err == nil {
			place = abs
		}
		list = append(list, place)
	}
	return list
}

// resolve follows the symbolic links of an absolute path as far as there is anything.
func resolve(path string) string {
	seen := 0
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if to, err := os.Readlink(at); err == nil && seen < 40 { // dangling: where it points to
			seen++
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(at), to)
			}
			at = filepath.Join(to, "x")
			continue
		}
		if at == "/" {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}
