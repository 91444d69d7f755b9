package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// EventsOptions of Events.
type EventsOptions struct {
	Recent int  // begin with so many of the newest that the agent keeps
	Follow bool // go on with those that happen, until the agent ends
}

// EventLine is one line of a stream of events: an event, or how many were lost before
// the next one because the reader was slow.
type EventLine struct {
	Event
	Missed int `json:"missed,omitempty"` // not 0: there is no event
}

// Events reads events as they happen. The stream ends with the agent, after an error,
// with ctx, or when the caller stops.
func (c *Client) Events(ctx context.Context, opt EventsOptions) iter.Seq2[EventLine, error] {
	q := url.Values{"recent": {strconv.Itoa(opt.Recent)}, "follow": {strconv.FormatBool(opt.Follow)}}
	return stream[EventLine](ctx, c, "/v1/events?"+q.Encode())
}

// LogsOptions of Logs.
type LogsOptions struct {
	Job    string // "": all jobs
	Lines  int    // begin with so many of the newest that the agent keeps
	Follow bool   // go on with those that come, until the agent ends
}

// LogsLine is one line of a stream of output: a line of a job, or how many were lost
// before the next one because the reader was slow.
type LogsLine struct {
	LogLine
	Missed int `json:"missed,omitempty"` // not 0: there is no line
}

// Logs reads the lines that jobs wrote, oldest first. It ends as Events does.
func (c *Client) Logs(ctx context.Context, opt LogsOptions) iter.Seq2[LogsLine, error] {
	q := url.Values{"lines": {strconv.Itoa(opt.Lines)}, "follow": {strconv.FormatBool(opt.Follow)}}
	if opt.Job != "" {
		q.Set("job", opt.Job)
	}
	return stream[LogsLine](ctx, c, "/v1/logs?"+q.Encode())
}

// stream reads an answer of JSON lines.
func stream[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		answer, err := c.send(ctx, http.MethodGet, path, nil)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = answer.Body.Close() }() // given up, or read whole
		if answer.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // what there is of it
			refusal := &Error{Kind: KindFailed, Message: strings.TrimSpace(string(text))}
			_ = json.Unmarshal(text, refusal) // else it is the text itself
			yield(none, refusal)
			return
		}
		for lines := json.NewDecoder(answer.Body); ; {
			var line T
			err := lines.Decode(&line)
			var syntax *json.SyntaxError
			switch {
			case err == nil && yield(line, nil):
				continue
			case err == nil, errors.Is(err, io.EOF) && ctx.Err() == nil:
			case errors.As(err, &syntax):
				yield(none, fmt.Errorf("read answer of agent on %s: %w", c.socket, err))
			default:
				yield(none, c.explain(ctx, err))
			}
			return
		}
	}
}
