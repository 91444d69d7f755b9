package control

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds on what comes over TCP, from anyone.
const (
	publicConns = 64
	publicWrite = 30 * time.Second
	publicIdle  = 15 * time.Second
)

// publicServer answers the few calls that need no rights, and nothing else.
func (s *Server) publicServer() *http.Server {
	answers := map[string]http.HandlerFunc{}
	for _, r := range s.routes() {
		if r.public != nil {
			_, path, _ := strings.Cut(r.pattern, " ")
			answers[path] = r.public
		}
	}
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := answers[r.URL.Path]
			if answer == nil || r.Method != http.MethodGet {
				http.NotFound(w, r)
				return
			}
			answer(w, r)
		}),
		ReadHeaderTimeout: s.opt.readTimeout,
		ReadTimeout:       s.opt.readTimeout,
		WriteTimeout:      publicWrite,
		IdleTimeout:       publicIdle,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
}

func listenPublic(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address) //nolint:noctx // it does not wait
	if err != nil {
		return nil, fmt.Errorf("listen for metrics and health: %w", err)
	}
	return netutil.LimitListener(listener, publicConns), nil
}
