package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// StartJob starts a job that does not run, whatever its conditions, and waits until it
// is ready. The answers of this and the next two say how it is then.
func (c *Client) StartJob(ctx context.Context, name string) (Job, error) {
	return c.onJob(ctx, name, "start")
}

// StopJob stops a job, and waits until it is gone. It stays stopped until it is started
// by hand.
func (c *Client) StopJob(ctx context.Context, name string) (Job, error) {
	return c.onJob(ctx, name, "stop")
}

// RestartJob stops a job and starts it, and waits until it runs again.
func (c *Client) RestartJob(ctx context.Context, name string) (Job, error) {
	return c.onJob(ctx, name, "restart")
}

func (c *Client) onJob(ctx context.Context, name, verb string) (Job, error) {
	var job Job
	err := c.call(ctx, http.MethodPost, "/v1/jobs/"+url.PathEscape(name)+"/"+verb, nil, &job)
	return job, err
}

// SignalRequest is the body of POST /v1/jobs/{name}/signal.
type SignalRequest struct {
	Signal string `json:"signal"` // as in TERM or SIGTERM
}

// SignalJob sends a job a signal.
func (c *Client) SignalJob(ctx context.Context, name, signal string) error {
	return c.call(ctx, http.MethodPost, "/v1/jobs/"+url.PathEscape(name)+"/signal", SignalRequest{Signal: signal}, &struct{}{})
}

// Reload has the agent read its configuration again, and waits until the jobs are as it
// says. If one does not start, the former jobs are put back, and the error says why.
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	var changed Reload
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, &changed)
	return changed, err
}

// MaintenanceRequest is the body of POST /v1/maintenance.
type MaintenanceRequest struct {
	On *bool `json:"on"` // nil is refused
}

// Maintenance turns maintenance on or off.
func (c *Client) Maintenance(ctx context.Context, on bool) error {
	return c.call(ctx, http.MethodPost, "/v1/maintenance", MaintenanceRequest{On: &on}, &struct{}{})
}

// PutEnv changes the environment of jobs' runs that start from now on; nil takes a
// variable out.
func (c *Client) PutEnv(ctx context.Context, change map[string]*string) error {
	return c.call(ctx, http.MethodPost, "/v1/env", change, &struct{}{})
}

// PutMetrics sets gauges, adds to counters and observes with histograms, which the
// configuration names. The users of jobs may call it.
func (c *Client) PutMetrics(ctx context.Context, values map[string]float64) error {
	return c.call(ctx, http.MethodPost, "/v1/metrics", values, &struct{}{})
}

// Webhook tells of a hook that was called, for which jobs may wait.
func (c *Client) Webhook(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/webhook/"+url.PathEscape(name), nil, &struct{}{})
}

// Health asks whether all that counts at a level is well. That it is not is no error.
func (c *Client) Health(ctx context.Context, level string) (Health, error) {
	var h Health
	err := c.call(ctx, http.MethodGet, "/v1/health?level="+url.QueryEscape(level), nil, &h)
	var refusal *Error
	if errors.As(err, &refusal) && h.Level != "" {
		err = nil
	}
	return h, err
}
