package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/secret"
	"drover/internal/secret/command"
	"drover/internal/secret/env"
	"drover/internal/secret/file"
	"drover/internal/secret/vault"
	"drover/internal/supervise"
)

// secrets are all sources: file:NAME, env:NAME and command:NAME name theirs, every other
// path is Vault's.
type secrets struct {
	vault    *vault.Source // nil: none
	byScheme map[string]secret.Source
	commands map[string]secret.Source
}

// errNoVault: a path is Vault's, and there is none.
var errNoVault = errors.New("secrets.vault is not configured")

// openSecrets makes the sources that are configured. It waits for nothing.
func openSecrets(cfg *config.Config, log *slog.Logger) (*secrets, error) {
	s := &secrets{
		byScheme: map[string]secret.Source{"file": file.New(cfg.Secrets.Dir, file.Every), "env": env.New(os.LookupEnv)},
		commands: map[string]secret.Source{},
	}
	for name, c := range cfg.Secrets.Commands {
		source, err := command.New(command.Options{
			Command: c.Command, Env: supervise.JobEnv(os.Environ(), nil), Every: c.Every.Std(), Limit: c.Timeout.Std(), JSON: c.JSON,
		})
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		s.commands[name] = source
	}
	v := cfg.Secrets.Vault
	if v.Address == "" {
		return s, nil
	}
	source, err := vault.Open(vault.Options{
		Address: v.Address, Namespace: v.Namespace, CAFile: v.CA, ServerName: v.ServerName, Login: loginOf(v),
		Poll: v.Poll.Std(), TokenCache: v.TokenCache, Log: log,
	})
	if err != nil {
		return nil, err
	}
	s.vault = source
	return s, nil
}

func loginOf(v config.Vault) vault.Login {
	switch {
	case v.Token.Set():
		return &vault.Token{Token: v.Token.Reveal()}
	case v.TokenFile != "":
		return &vault.TokenFile{Path: v.TokenFile}
	case v.AppRole != config.AppRole{}:
		a := v.AppRole
		return &vault.AppRole{Mount: a.Mount, RoleIDFile: a.RoleIDFile, SecretIDFile: a.SecretIDFile, WrappedPath: a.WrappedPath}
	case v.Kubernetes != config.JWT{}:
		login := vault.Kubernetes(v.Kubernetes.Role)
		if v.Kubernetes.Mount != "" {
			login.Mount = v.Kubernetes.Mount
		}
		if v.Kubernetes.Path != "" {
			login.Path = v.Kubernetes.Path
		}
		return login
	case v.JWT != config.JWT{}:
		return &vault.JWT{Mount: v.JWT.Mount, Role: v.JWT.Role, Path: v.JWT.Path}
	case v.AWS != config.VaultAWS{}:
		return &vault.AWS{Mount: v.AWS.Mount, Role: v.AWS.Role, Region: v.AWS.Region, ServerID: v.AWS.ServerID}
	}
	return &vault.Certificate{Mount: v.Cert.Mount, Name: v.Cert.Name, CertFile: v.Cert.Cert, KeyFile: v.Cert.Key}
}

// Watch implements secret.Source.
func (s *secrets) Watch(ctx context.Context, r secret.Request, fn func(*secret.Secret, error)) {
	scheme, name, named := strings.Cut(r.Path, ":")
	if of := s.byScheme[scheme]; named && of != nil {
		r.Path = name
		of.Watch(ctx, r, fn)
		return
	}
	if of := s.commands[name]; named && scheme == "command" && of != nil && !r.List && len(r.Params) == 0 {
		of.Watch(ctx, secret.Request{}, fn)
		return
	}
	if named && scheme == "command" {
		fn(nil, fmt.Errorf("secret %s: there is no such command in secrets.commands, or it is asked for more than what it prints: %w", r.Path, secret.ErrNotFound))
		<-ctx.Done()
		return
	}
	if s.vault == nil {
		fn(nil, fmt.Errorf("secret %s: %w: %w", r.Path, errNoVault, secret.ErrNotFound))
		<-ctx.Done()
		return
	}
	s.vault.Watch(ctx, r, fn)
}

// secretsLimit bounds the revoking of leases at the end.
const secretsLimit = 10 * time.Second

// closeSecrets revokes what was leased, when the jobs have ended.
func closeSecrets(ctx context.Context, s *secrets, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), secretsLimit)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		log.Warn("leases of secrets end by themselves", "err", err)
	}
}

// leave ends the sources, and revokes nothing: what was leased is in use until its end.
func (s *secrets) leave() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(ctx) // it says that nothing was revoked
}

// Close implements secret.Source.
func (s *secrets) Close(ctx context.Context) error {
	if s.vault == nil {
		return nil
	}
	return s.vault.Close(ctx)
}

// state tells how Vault is; nil: there is none.
func (s *secrets) state() *client.Secrets {
	if s == nil || s.vault == nil {
		return nil
	}
	h := s.vault.Health()
	out := &client.Secrets{Healthy: h.Err == nil && len(h.Failing) == 0, Since: h.Since}
	if h.Err != nil {
		out.Error = h.Err.Error()
	}
	for _, path := range slices.Sorted(maps.Keys(h.Failing)) {
		out.Failing = append(out.Failing, path+": "+h.Failing[path].Error())
	}
	return out
}
