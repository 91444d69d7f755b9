package client

import (
	"context"
	"net/http"
)

// WALPushRequest is the body of POST /v1/wal/push.
type WALPushRequest struct {
	Path string `json:"path"` // absolute
}

// PushWAL has the agent store a file of the database's log, in pg_wal of its data directory, and waits
// until it is stored. An *Error of KindConflict: another content is stored under that name.
func (c *Client) PushWAL(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodPost, "/v1/wal/push", WALPushRequest{Path: path}, &struct{}{})
}

// WALFetchRequest is the body of POST /v1/wal/fetch.
type WALFetchRequest struct {
	Name string `json:"name"`
	Path string `json:"path"` // absolute
}

// FetchWAL has the agent bring a file of the database's log, by name, to a path in pg_wal of its data
// directory. An *Error of KindAbsent, and nothing else, says that the store does not have it.
func (c *Client) FetchWAL(ctx context.Context, name, path string) error {
	return c.call(ctx, http.MethodPost, "/v1/wal/fetch", WALFetchRequest{Name: name, Path: path}, &struct{}{})
}
