package vault

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"drover/internal/secret"
)

// read makes the request of a secret: a read, a write or a list. A path of the second
// version of KV may be written as one of the first: secret/app is secret/data/app.
// mount is what kv2 said for the same path before; nil: it is asked. What it said is returned.
func (c *client) read(ctx context.Context, r secret.Request, token string, mount *string) (*answer, *string, error) {
	path, text, _ := strings.Cut(r.Path, "?")
	query, err := url.ParseQuery(text)
	if err != nil {
		return nil, nil, errors.New("the parameters after the path cannot be read")
	}
	path = strings.Trim(path, "/")
	in := call{method: http.MethodGet, path: path, query: query, token: token}
	if r.Params != nil {
		in.method, in.body = http.MethodPut, r.Params
	}
	if r.List {
		in.query.Set("list", "true")
	}
	if mount == nil {
		found, err := c.kv2(ctx, path, token)
		if err != nil {
			return nil, nil, err
		}
		mount = &found
	}
	if *mount != "" {
		in.path = kv2Path(*mount, path, r.List)
		if _, whole := r.Params["data"].(map[string]any); r.Params != nil && !whole {
			in.body = map[string]any{"data": r.Params}
		}
	}
	got, err := c.do(ctx, in)
	return got, mount, err
}

// kv2 returns where the engine that a path belongs to is mounted, if it is the second
// version of KV; else, or if that cannot be known, "".
func (c *client) kv2(ctx context.Context, path, token string) (string, error) {
	got, err := c.do(ctx, call{method: http.MethodGet, path: "sys/internal/ui/mounts/" + path, token: token})
	if err != nil {
		if errors.Is(err, secret.ErrUnavailable) {
			return "", err
		}
		return "", nil // the token has no right below the path, or Vault is too old: as it is written
	}
	options, _ := got.Data["options"].(map[string]any)
	if got.Data["type"] != "kv" || options["version"] != "2" {
		return "", nil
	}
	mount, _ := got.Data["path"].(string)
	return mount, nil
}

// kv2Path puts into a path what the second version of KV wants after its mount.
func kv2Path(mount, path string, list bool) string {
	mount = strings.Trim(mount, "/") + "/"
	rest := strings.TrimPrefix(path+"/", mount)
	if rest == path+"/" {
		return path // not below it
	}
	rest = strings.TrimSuffix(rest, "/")
	want := "data"
	if list {
		want = "metadata"
	}
	first, below, _ := strings.Cut(rest, "/")
	switch {
	case first == "metadata", first == want, !list && isKV2(first):
		return path
	case list && first == "data":
		rest = below
	}
	return strings.TrimSuffix(mount+want+"/"+rest, "/")
}

// isKV2 names the other endpoints of the engine. A secret of such a name has to be written
// with data/ before it.
func isKV2(first string) bool {
	return first == "config" || first == "delete" || first == "undelete" || first == "destroy"
}
