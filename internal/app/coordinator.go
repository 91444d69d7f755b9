package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"

	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/coord/dns"
	"drover/internal/coord/etcd"
	"drover/internal/coord/file"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/render"
	"drover/internal/secret"
)

// coordinator is what the backend that is configured can do; what it cannot is nil.
type coordinator struct {
	catalog  coord.Catalog
	kv       coord.KV
	leases   coord.Leases
	registry coord.Registry
	close    func()
}

// ownKeys is where Drover's own keys are that backends make, in all of a coordinator.
const ownKeys = "drover"

// openCoordinator makes the backend. It waits for nothing: a coordinator that is away is
// for the parts that use it to bear.
func openCoordinator(ctx context.Context, cfg *config.Config, log *slog.Logger) (*coordinator, error) {
	c := cfg.Coordinator
	switch cfg.CoordinatorKind() {
	case config.CoordinatorConsul:
		scheme := "http://"
		if c.TLS {
			scheme = "https://"
		}
		return whole(consul.New(consul.Options{
			Address: scheme + cfg.CoordinatorHosts()[0], Token: c.Token.Reveal(), TokenFile: c.TokenFile,
			CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, Datacenter: c.Datacenter, LeasePrefix: ownKeys + "/lease/",
		}))
	case config.CoordinatorEtcd:
		o := etcd.Options{Prefix: cfg.KeysBelow(), User: c.User, PasswordFile: c.PasswordFile, TLS: etcd.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key}}
		scheme := "http://"
		if c.TLS {
			scheme = "https://"
		}
		for _, host := range cfg.CoordinatorHosts() {
			o.Endpoints = append(o.Endpoints, scheme+host)
		}
		return whole(etcd.Open(o))
	case config.CoordinatorStore:
		o := object.Options{Interval: c.Every.Std()}
		if c.SealFile != "" {
			var err error
			if o.Sealer, err = sealerOf(c.SealFile); err != nil {
				return nil, fmt.Errorf("open coordinator: %w", err)
			}
		}
		st, err := openStore(ctx, cfg, nil, 1, log)
		if err != nil {
			return nil, err
		}
		co, err := whole(object.New(st, o), nil)
		if closer, ok := st.(objstore.Closer); ok && err == nil {
			client := co.close
			co.close = func() { client(); _ = closer.Close() }
		}
		return co, err
	case config.CoordinatorFile:
		return &coordinator{catalog: file.New(cfg.CoordinatorPath(), file.Options{}), close: func() {}}, nil
	case config.CoordinatorDNS:
		u, err := url.Parse(c.URL)
		var o dns.Options
		if err == nil {
			o, err = dns.ParseURL(u)
		}
		var catalog *dns.Catalog
		if err == nil {
			catalog, err = dns.New(o)
		}
		if err != nil {
			return nil, fmt.Errorf("open coordinator: %w", err)
		}
		return &coordinator{catalog: catalog, close: func() {}}, nil
	}
	return &coordinator{close: func() {}}, nil
}

// sealerOf reads the secret that agents share.
func sealerOf(name string) (object.Sealer, error) {
	secret, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the secret that seals: %w", err)
	}
	return object.NewSealer(bytes.TrimRight(secret, "\r\n"))
}

// whole is a coordinator that can do everything.
func whole[C coord.Coordinator](c C, err error) (*coordinator, error) {
	if err != nil {
		return nil, fmt.Errorf("open coordinator: %w", err)
	}
	return &coordinator{catalog: c, kv: c, leases: c, registry: c, close: func() { _ = c.Close() }}, nil
}

// sourcesOf is what templates read.
func sourcesOf(co *coordinator, secrets secret.Source) render.Sources {
	s := render.Sources{KV: co.kv, Catalog: co.catalog, Secrets: secrets}
	if nodes, ok := co.catalog.(render.Machines); ok {
		s.Nodes = nodes
	}
	return s
}
