package config

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Secrets says where secrets come from. Templates read them with secret, secrets and pkiCert.
type Secrets struct {
	Vault    Vault                    `yaml:"vault" doc:"Vault, or OpenBao."`
	Dir      string                   `yaml:"dir" doc:"Directory of the files that file:NAME means. Default: /run/secrets."`
	Commands map[string]SecretCommand `yaml:"commands" doc:"Commands whose output command:NAME means, by name: a command, or a mapping."`
}

// SecretCommand prints a secret.
type SecretCommand struct {
	Command Command  `yaml:"command" doc:"What to run: a list, or a string for /bin/sh."`
	Every   Duration `yaml:"every" doc:"How often it is run again."`
	Timeout Duration `yaml:"timeout" doc:"After this long it is killed."`
	JSON    bool     `yaml:"json" doc:"It prints an object, and not one value."`
}

func (SecretCommand) short() string { return "command" }

// DefaultSecretCommand is one that only has a command.
func DefaultSecretCommand() SecretCommand {
	return SecretCommand{Every: Duration(5 * time.Minute), Timeout: Duration(30 * time.Second)}
}

// Vault is where it is, and how to log in; one way is given.
type Vault struct {
	Address    string    `yaml:"address" doc:"https://host:8200."`
	Namespace  string    `yaml:"namespace" doc:"Namespace of all paths."`
	CA         string    `yaml:"ca" doc:"File of the certificates to trust. Default: the system's."`
	ServerName string    `yaml:"server_name" doc:"Name that the server's certificate must have. Default: the address's."`
	Token      Secret    `yaml:"token" doc:"A token. A file keeps it out of this one."`
	TokenFile  string    `yaml:"token_file" doc:"File with a token, which somebody else replaces."`
	AppRole    AppRole   `yaml:"approle" doc:"Log in as an AppRole."`
	Kubernetes JWT       `yaml:"kubernetes" doc:"Log in with the pod's service account: the role, or a mapping."`
	JWT        JWT       `yaml:"jwt" doc:"Log in with a token of somebody else's."`
	Cert       VaultCert `yaml:"cert" doc:"Log in with a TLS certificate."`
	AWS        VaultAWS  `yaml:"aws" doc:"Log in as the IAM role or user that the instance has: the role, or a mapping."`
	Poll       Duration  `yaml:"poll" doc:"How often it is asked for what does not end, such as KV."`
	TokenCache string    `yaml:"token_cache" doc:"File on a tmpfs where the token is kept for a start after a crash."`
}

// AppRole is a role-id and a secret-id.
type AppRole struct {
	Mount        string `yaml:"mount" doc:"Where the method is mounted. Default: approle."`
	RoleIDFile   string `yaml:"role_id_file" doc:"File with the role-id; it is read at each login, as all of these."`
	SecretIDFile string `yaml:"secret_id_file" doc:"File with the secret-id."`
	WrappedPath  string `yaml:"wrapped_path" doc:"The secret-id is wrapped, and must have been made by this path: auth/approle/role/NAME/secret-id."`
}

// JWT is a role, and the file of a token.
type JWT struct {
	Mount string `yaml:"mount" doc:"Where the method is mounted. Default: its name."`
	Role  string `yaml:"role" doc:"Role to log in as."`
	Path  string `yaml:"path" doc:"File with the token. Default for kubernetes: the service account's."`
}

func (JWT) short() string { return "role" }

// VaultCert is a certificate that logs in.
type VaultCert struct {
	Mount string `yaml:"mount" doc:"Where the method is mounted. Default: cert."`
	Name  string `yaml:"name" doc:"Its role. Default: Vault finds one that fits."`
	Cert  string `yaml:"cert" doc:"File of the certificate."`
	Key   string `yaml:"key" doc:"File of its key."`
}

// VaultAWS is an IAM role or user.
type VaultAWS struct {
	Mount    string `yaml:"mount" doc:"Where the method is mounted. Default: aws."`
	Role     string `yaml:"role" doc:"Role of Vault."`
	Region   string `yaml:"region" doc:"Region whose STS Vault asks. Default: the global one."`
	ServerID string `yaml:"server_id" doc:"What Vault demands that the login names."`
}

func (VaultAWS) short() string { return "role" }

// DefaultVaultPoll is how often what does not end is asked for.
const DefaultVaultPoll = Duration(5 * time.Minute)

func (c *Config) checkSecrets() error {
	v, at := c.Secrets.Vault, "secrets.vault"
	var ways []string
	for way, given := range map[string]bool{
		"token": v.Token.Set(), "token_file": v.TokenFile != "", "approle": v.AppRole != AppRole{}, "kubernetes": v.Kubernetes != JWT{}, "jwt": v.JWT != JWT{}, "cert": v.Cert != VaultCert{}, "aws": v.AWS != VaultAWS{},
	} {
		if given {
			ways = append(ways, way)
		}
	}
	slices.Sort(ways)
	for _, name := range slices.Sorted(maps.Keys(c.Secrets.Commands)) {
		switch one, at := c.Secrets.Commands[name], "secrets.commands."+name; {
		case !validName(name):
			return c.origin.at(at, fmt.Sprintf("name %q is not valid", name), nameHint)
		case len(one.Command) == 0 || one.Command[0] == "":
			return c.origin.at(at, fmt.Sprintf("secret %q has no command", name), "add command")
		case one.Every < MinTTL || one.Timeout <= 0:
			return c.origin.at(at, fmt.Sprintf("secret %q has no times", name), "write every: 1s or more, and a timeout")
		}
	}
	if dir := c.Secrets.Dir; dir != "" && !filepath.IsAbs(dir) {
		return c.origin.at("secrets.dir", fmt.Sprintf("directory %q is not absolute", dir), "begin it with a slash")
	}
	if v.Address == "" {
		if len(ways) > 0 {
			return c.origin.at(at, "Vault has no address", "add address: https://host:8200")
		}
		return nil
	}
	u, err := url.Parse(v.Address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
		return c.origin.at(at+".address", "Vault's address is not a URL of a host", "write https://host:8200")
	case len(ways) != 1:
		return c.origin.at(at, fmt.Sprintf("there are %d ways to log in to Vault (%s)", len(ways), strings.Join(ways, ", ")), "give one of token, token_file, approle, kubernetes, jwt, cert and aws")
	case v.Poll < MinTTL:
		return c.origin.at(at+".poll", fmt.Sprintf("interval %s is too short", v.Poll), "write 1s or more")
	case ways[0] == "approle" && v.AppRole.RoleIDFile == "":
		return c.origin.at(at+".approle", "the AppRole has no role-id", "add role_id_file")
	case ways[0] == "approle" && v.AppRole.WrappedPath != "" && v.AppRole.SecretIDFile == "":
		return c.origin.at(at+".approle", "the AppRole's secret-id is wrapped, and there is none", "add secret_id_file")
	case ways[0] == "kubernetes" && v.Kubernetes.Role == "", ways[0] == "jwt" && (v.JWT.Role == "" || v.JWT.Path == ""):
		return c.origin.at(at+"."+ways[0], "the login lacks its role, or the file of its token", "add role and path")
	case ways[0] == "cert" && (v.Cert.Cert == "" || v.Cert.Key == ""):
		return c.origin.at(at+".cert", "the login lacks its certificate, or that one's key", "add cert and key")
	}
	return nil
}

// GitRepo is a repository whose files become keys of the coordinator.
type GitRepo struct {
	URL          string             `yaml:"url" doc:"https://, http://, ssh:// or host:path. Credentials come from files."`
	User         string             `yaml:"user" doc:"For HTTP, with password_file. Default: git."`
	PasswordFile string             `yaml:"password_file" doc:"File with that user's password, or an access token."`
	TokenFile    string             `yaml:"token_file" doc:"File with a bearer token."`
	CA           string             `yaml:"ca" doc:"File of certificates to trust beside the system's."`
	KeyFile      string             `yaml:"key_file" doc:"For SSH: file with the private key."`
	KeyPassword  string             `yaml:"key_passphrase_file" doc:"File with what that key is locked with."`
	KnownHosts   string             `yaml:"known_hosts_file" doc:"For SSH: file with the server's key."`
	Branches     Names              `yaml:"branches" doc:"Names, or patterns whose * stops at a slash. Default: main, if there are no tags."`
	Tags         Names              `yaml:"tags" doc:"The same, of tags."`
	Mode         GitMode            `yaml:"mode" doc:"atomic: each commit's keys in a tree of their own, and current is moved to it. in-place: right below the mount point, for readers that know nothing of that."`
	Mountpoint   string             `yaml:"mountpoint" doc:"Where the keys begin."`
	SourceRoot   string             `yaml:"source_root" doc:"Directory of the repository that is taken. Default: all."`
	OmitName     bool               `yaml:"ignore_repo_name" doc:"Leave the repository's name out of the keys."`
	OmitBranch   bool               `yaml:"ignore_branch_name" doc:"Leave the branch's name out of the keys."`
	Expand       bool               `yaml:"expand" doc:"JSON, YAML and properties files become a key for each value."`
	Arrays       GitArrays          `yaml:"arrays" doc:"What becomes of a list in such a file. json: one key. index: a key for each element. ignore: nothing."`
	OmitExt      bool               `yaml:"ignore_file_extension" doc:"Leave out the extension of files that are expanded."`
	Common       string             `yaml:"common_properties" doc:"File whose properties others may use as ${name}."`
	KeepSpace    bool               `yaml:"keep_space" doc:"Keep white space around a file's content."`
	Exclude      Names              `yaml:"exclude" doc:"Patterns of files that are left out."`
	Keep         int                `yaml:"keep" doc:"With mode: atomic. How many trees stay, the current one included."`
	Remove       bool               `yaml:"remove_deleted" doc:"Remove the keys of a branch or a tag that is gone."`
	Poll         Duration           `yaml:"poll" doc:"How often the repository is looked at."`
	Hooks        map[GitHook]Hooked `yaml:"hooks" doc:"Web hooks, by who calls: github, gitlab, gitlab-signed, bitbucket, gitea. The file of the secret, or a mapping. They come in on git_listen."`
}

// Hooked is a web hook.
type Hooked struct {
	SecretFile string `yaml:"secret_file" doc:"File with the secret that the call is signed with."`
	Path       string `yaml:"path" doc:"Path of the call. Default: /REPOSITORY/KIND."`
}

func (Hooked) short() string { return "secret_file" }

// The words of repositories.
type (
	GitMode   string
	GitArrays string
	GitHook   string
)

// Their values.
const (
	GitAtomic       GitMode   = "atomic"
	GitInPlace      GitMode   = "in-place"
	GitArraysJSON   GitArrays = "json"
	GitArraysIndex  GitArrays = "index"
	GitArraysIgnore GitArrays = "ignore"
)

func (GitMode) choices() []string { return words(GitAtomic, GitInPlace) }
func (GitArrays) choices() []string {
	return words(GitArraysJSON, GitArraysIndex, GitArraysIgnore)
}
func (GitHook) choices() []string {
	return []string{"github", "gitlab", "gitlab-signed", "bitbucket", "gitea"}
}

// UnmarshalText takes one of the words.
func (m *GitMode) UnmarshalText(text []byte) error   { return choose(m, text) }
func (a *GitArrays) UnmarshalText(text []byte) error { return choose(a, text) }
func (h *GitHook) UnmarshalText(text []byte) error   { return choose(h, text) }

// DefaultGit is a repository that only has a URL.
func DefaultGit() GitRepo {
	return GitRepo{Mode: GitAtomic, Arrays: GitArraysJSON, Keep: 5, Poll: Duration(time.Minute)}
}

func (c *Config) checkGit() error {
	hooked := false
	for _, name := range slices.Sorted(maps.Keys(c.Git)) {
		g, at := c.Git[name], "git."+name
		hooked = hooked || len(g.Hooks) > 0
		switch {
		case !validName(name):
			return c.origin.at(at, fmt.Sprintf("repository name %q is not valid", name), nameHint)
		case g.URL == "":
			return c.origin.at(at, fmt.Sprintf("repository %q has no URL", name), "add url")
		case g.Keep < 1 || g.Keep > 1000:
			return c.origin.at(at+".keep", fmt.Sprintf("cannot keep %d trees", g.Keep), "write one from 1 to 1000")
		case g.Poll < MinTTL:
			return c.origin.at(at+".poll", fmt.Sprintf("interval %s is too short", g.Poll), "write 1s or more")
		}
		if u, err := url.Parse(g.URL); err == nil && u.User != nil && u.Scheme != "ssh" {
			return c.origin.at(at+".url", "the repository's URL holds credentials", "take them out; they belong into password_file or token_file")
		}
		for i, p := range slices.Concat(g.Branches, g.Tags) {
			if _, err := path.Match(p, ""); err != nil {
				return c.origin.at(at, fmt.Sprintf("pattern %d, %q, is not valid", i, p), "close its brackets")
			}
		}
		for kind, h := range g.Hooks {
			if h.SecretFile == "" || h.Path != "" && !strings.HasPrefix(h.Path, "/") {
				return c.origin.at(at+".hooks", fmt.Sprintf("web hook %s has no secret, or a path without a slash", kind), "add secret_file; anybody could call it otherwise")
			}
		}
		for _, file := range []string{g.PasswordFile, g.TokenFile, g.KeyFile, g.KnownHosts} {
			if file != "" && !filepath.IsAbs(file) {
				return c.origin.at(at, fmt.Sprintf("file %q is not absolute", file), "begin it with a slash")
			}
		}
	}
	switch {
	case hooked && c.GitListen == "":
		return c.origin.at("git", "there are web hooks, and nowhere for them to come in", "set git_listen: \":8080\"")
	case c.GitListen != "" && checkAddress(c.GitListen) != "":
		return c.origin.at("git_listen", checkAddress(c.GitListen), "write host:port, as :8080")
	}
	return nil
}
