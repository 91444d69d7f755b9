package policy

import (
	"strings"
	"testing"
)

// rule says what the packages of one folder may import of this module. The
// first rule that names a folder holds for it.
type rule struct {
	of      string
	may     []string
	because string
}

// The direction of dependencies: cmd → cli → client; cli → app → features →
// ports → leaves; backends → their port. Tests are free of it.
var rules = []rule{
	{"cmd/...", []string{"internal/cli"},
		"main is a sentence; what it says is the command line's"},
	{"client/...", nil,
		"programs outside of this project use it, so nothing internal may show through it"},
	{"internal/cli/...", []string{"internal/cli/...", "client", "internal/app/...", "internal/demo", "internal/containerpilot"},
		"the commands speak to an agent as anyone can, and to the parts only through the composition root; converting a file is no part of an agent"},
	{"internal/demo/...", []string{"client"},
		"the demo acts as a user does, through the binary"},
	{"internal/app/...", []string{
		"internal/app/...", "internal/config", "client",
		"internal/initproc", "internal/supervise/...", "internal/volume/...", "internal/changes", "internal/control/...",
		"internal/repo/...", "internal/objstore/...", "internal/coord/...", "internal/event", "internal/telemetry", "internal/proctree",
		"internal/freeze", "internal/doctor/...", "internal/register", "internal/roll", "internal/render/...", "internal/secret/...", "internal/gitkv/...",
		"internal/database/...", "internal/failover",
	}, "the composition root knows every part and none of them knows it: only app reads config and picks backends"},

	// Features. They meet through event, or an interface that the consumer declares.
	{"internal/volume/protocol", nil,
		"the protocol decides alone: whatever it could call it could depend on"},
	{"internal/volume/slots", []string{"internal/volume/protocol"},
		"which volume to try is decided alone, too, by what the protocol says of heads"},
	{"internal/volume/...", []string{"internal/volume/...", "internal/repo/...", "internal/objstore"},
		"named exception: the protocol runs over the repository and the store, whichever store it is"},
	{"internal/supervise/check", []string{"internal/proctree"},
		"how a job is asked has nothing to do with how it is run; what follows from the answer is wired by app"},
	{"internal/supervise/...", []string{"internal/supervise/...", "internal/event", "internal/proctree"},
		"jobs are run the same way whatever the reason"},
	{"internal/changes/...", []string{"internal/changes/...", "internal/event"},
		"which files changed is a question about a disk, not about a volume"},
	{"internal/control/...", []string{"internal/control/...", "internal/event", "internal/telemetry", "client"},
		"the API shows what it is given; client has the types that both ends speak"},
	{"internal/render/...", []string{"internal/render/...", "internal/event", "internal/coord", "internal/secret"},
		"templates read ports; who runs the reload is wired by app"},
	{"internal/register", []string{"internal/coord"},
		"what a catalog is told comes from app; which catalog it is does not matter"},
	{"internal/roll", []string{"internal/coord"},
		"whose turn it is has nothing to do with what changes"},
	{"internal/gitkv/...", []string{"internal/gitkv/...", "internal/event", "internal/coord"},
		"a repository becomes keys through the coordinator's port, whichever it is"},
	{"internal/sharedir/...", []string{"internal/sharedir/...", "internal/event", "internal/coord", "internal/objstore", "internal/repo/..."},
		"a shared directory is blobs and pointers, not a volume with one holder"},
	{"internal/appcluster/...", []string{"internal/appcluster/...", "internal/event", "internal/coord"},
		"drivers act on an application; how it is supervised is not theirs"},
	{"internal/database/databasetest", []string{"internal/database", "internal/failover", "internal/testkit/process"},
		"the conformance suite knows the contract and no engine"},
	{"internal/database/postgres", []string{"internal/database", "internal/failover"},
		"a driver knows the contract and its vendor's SDK; what it is to do is decided elsewhere"},
	{"internal/database/wal", []string{"internal/objstore"},
		"a database's log is objects beside a repository, whichever store it is; when PostgreSQL asks is others' to know"},
	{"internal/database/pgbackup", []string{"internal/database/wal", "internal/volume"},
		"a base backup is a volume's snapshot and the log that goes with it; who runs the server is its driver's"},
	{"internal/database/...", []string{"internal/database/...", "internal/event", "internal/coord", "internal/failover", "internal/volume"},
		"named exception: the runner acts out what failover decides, and backs up into a volume"},

	// Ports, their backends, and leaves.
	{"internal/failover/sim", []string{"internal/failover"},
		"it plays what failover decides, against a database of its own"},
	{"internal/failover/...", nil,
		"it decides alone"},
	{"internal/coord/object", []string{"internal/coord", "internal/objstore"},
		"named exception: the store as the coordinator"},
	{"internal/coord/...", []string{"internal/coord/..."},
		"a backend knows its port and its vendor's SDK"},
	{"internal/repo", []string{"internal/repo/...", "internal/objstore", "internal/proctree"},
		"as below; and a lock says which process made it, whose death can be looked up"},
	{"internal/repo/...", []string{"internal/repo/...", "internal/objstore"},
		"a repository is in a store, whichever it is, and knows nothing of heads and holders"},
	{"internal/objstore", nil,
		"the port is a contract"},
	{"internal/objstore/storeurl", []string{"internal/objstore/..."},
		"the one place below app that turns a URL into a backend"},
	{"internal/objstore/...", []string{"internal/objstore", "internal/objstore/probe", "internal/objstore/httpconn"},
		"a backend knows its port, its vendor's SDK and the connections that all share; a decorator knows only the port; the conformance suite knows the probe's checks"},
	{"internal/secret/vault/lifetime", nil,
		"when to renew is decided alone"},
	{"internal/secret/...", []string{"internal/secret/..."},
		"a backend knows its port and its vendor's SDK"},
	{"internal/initproc/...", []string{"internal/initproc/...", "internal/proctree"},
		"PID 1 must not fall with anything that it watches over"},
	{"internal/freeze/...", []string{"internal/proctree"},
		"holding processes still is one thing, what is read meanwhile another"},
	{"internal/proctree/...", nil, "a leaf"},
	{"internal/event/...", nil, "a leaf: everything may speak of events"},
	{"internal/telemetry/...", nil, "a leaf"},
	{"internal/doctor/...", []string{"internal/doctor"},
		"what is wrong is decided alone, from facts; the readers of facts know nothing but the facts"},
	{"internal/config/...", []string{"internal/config/..."},
		"the configuration is data; what it does is app's to say"},

	{"internal/containerpilot", nil,
		"text becomes text: what it made is for config to judge, like any other file"},

	// What only tests use.
	{"internal/testkit/...", []string{"internal/testkit/...", "internal/objstore/...", "client"},
		"a harness that knew the inside of what it tests would share its mistakes"},
	{"internal/policy", nil, "it reads the project as text"},
	{"bench/...", []string{"bench/...", "client", "internal/testkit/..."},
		"figures are taken from outside, as a user would"},
	{"e2e/...", []string{"client", "internal/testkit/..."},
		"the stories see what a user sees"},
}

// ruleOf returns the rule for a folder.
func ruleOf(dir string) (rule, bool) {
	for _, r := range rules {
		if matches(r.of, dir) {
			return r, true
		}
	}
	return rule{}, false
}

func TestImportRules(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		r, ok := ruleOf(f.dir)
		if !ok {
			t.Errorf("%s: no import rule names its folder: state one, with its reason, in internal/policy", f.path)
			continue
		}
		for _, p := range f.imports() {
			dir, ours := strings.CutPrefix(p, module+"/")
			if ours && dir != f.dir && !matchesAny(r.may, dir) {
				t.Errorf("%s imports %s: %s may not, because: %s", f.path, dir, r.of, r.because)
			}
		}
	}
}

// homes says where each dependency may be imported, outside of tests.
var homes = []rule{
	{"github.com/BurntSushi/toml", []string{"internal/render/language"},
		"templates write TOML as consul-template does"},
	{"github.com/Masterminds/sprig/v3", []string{"internal/render/language"},
		"the functions that templates know as sprig_*"},
	{"dario.cat/mergo", []string{"internal/render/language"},
		"the semantics of mergeMap; sprig has it already"},
	{"github.com/davecgh/go-spew", []string{"internal/render/language"},
		"the functions that templates know as spew_*"},
	{"github.com/hashicorp/go-sockaddr", []string{"internal/render/language"},
		"the function sockaddr has a language of its own"},
	{"go.yaml.in/yaml/v2", []string{"internal/render/language"},
		"templates read and write YAML byte for byte as consul-template does, which is version 2"},
	{"github.com/miekg/dns", []string{"internal/coord/dns"},
		"a vendor's SDK appears only in its backend's folder"},
	{"github.com/minio/minio-go/v7/pkg/credentials", []string{"internal/objstore/s3", "internal/secret/vault"},
		"Amazon's credentials are found in one way, whatever they are shown to"},
	{"github.com/minio/minio-go/v7/pkg/signer", []string{"internal/secret/vault"},
		"Amazon's signatures are made in one way"},
	{"github.com/minio/minio-go/v7", []string{"internal/objstore/s3"},
		"a vendor's SDK appears only in its backend's folder"},
	{"github.com/hashicorp/consul/api", []string{"internal/coord/consul"},
		"a vendor's SDK appears only in its backend's folder"},
	{"github.com/spf13/cobra", []string{"internal/cli/..."},
		"only the command line parses a command line"},
	{"github.com/pmezard/go-difflib", []string{"internal/cli/..."},
		"only the command line shows people what a file would become"},
	{"github.com/spf13/pflag", []string{"internal/cli/..."},
		"only the command line parses a command line"},
	{"github.com/goccy/go-yaml", []string{"internal/config", "internal/doctor/compose", "internal/coord/file"},
		"one strict way to read our file, and one lenient way to read Compose's; a catalog in a file has a format of its own"},
	{"github.com/invopop/jsonschema", []string{"internal/config/..."},
		"the schema is made from the types of the configuration"},
	{"github.com/go-git/go-git/v5", []string{"internal/gitkv/remote"},
		"Git's protocol is spoken in one place; the rest knows files and commits"},
	{"go.yaml.in/yaml/v3", []string{"internal/gitkv"},
		"values in somebody's files are taken as they were written, which needs the text of each"},
	{"github.com/klauspost/compress", []string{"internal/repo/...", "internal/database/wal"},
		"compression is part of the repository's format, and of the log's beside it"},
	{"github.com/jackc/pgx/v5", []string{"internal/database/postgres", "internal/database/pgbackup", "internal/testkit/appender"},
		"PostgreSQL is spoken to by its driver, and by who makes its backups"},
	{"github.com/pkg/xattr", []string{"internal/repo/...", "internal/volume"},
		"what files carry is the repository's; the marker in a directory is the volume's"},
	{"github.com/prometheus/client_golang", []string{"internal/objstore/metered", "internal/telemetry", "internal/control/...", "internal/app"},
		"decorators measure; the rest does not know that it is measured"},
	{"github.com/robfig/cron/v3", []string{"internal/config"},
		"an expression is checked where it is read; who runs by it sees its next turn only"},
	{"go.etcd.io/etcd", []string{"internal/coord/etcd"},
		"a vendor's SDK appears only in its backend's folder"},
	{"go.uber.org/zap", []string{"internal/coord/etcd"},
		"etcd's client takes such a logger, and is given one that says nothing"},
	{"google.golang.org/grpc", []string{"internal/supervise/check", "internal/coord/etcd"},
		"gRPC is spoken to ask a job for its health, and by etcd's client, which leaves its errors as they are"},
	{"go.uber.org/goleak", []string{"internal/testkit/leak"},
		"tests only"},
	{"golang.org/x/term", []string{"internal/cli/..."},
		"only the command line speaks to a terminal"},
	{"golang.org/x/crypto/ssh", []string{"internal/objstore/manta", "internal/gitkv/remote", "internal/testkit/gitserver"},
		"Manta's requests are signed with the key that its users have for SSH; Git's servers speak it"},
	{"golang.org/x/crypto", []string{"internal/repo/crypto"},
		"cryptography in one place, to be read in one sitting"},
	{"golang.org/x/net", []string{"internal/control"},
		"a bound on the connections from anyone"},
	{"golang.org/x/time", []string{"internal/objstore/limited"},
		"rates are a decorator's affair"},
	{"golang.org/x/sys", []string{"..."}, "an extension of the standard library"},
	{"golang.org/x/sync", []string{"..."}, "an extension of the standard library"},
	{"golang.org/x/text", []string{"..."}, "an extension of the standard library"},
}

func TestDependenciesStayAtHome(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		for _, p := range f.imports() {
			first, _, _ := strings.Cut(p, "/")
			if !strings.Contains(first, ".") {
				continue
			}
			home, known := homeOf(p)
			switch {
			case !known:
				t.Errorf("%s imports %s, which has no home: state where it may be imported, with the reason, in internal/policy", f.path, p)
			case home.may[0] != "..." && !matchesAny(home.may, f.dir):
				t.Errorf("%s imports %s: only %s may, because: %s", f.path, p, strings.Join(home.may, ", "), home.because)
			}
		}
	}
}

// homeOf returns the row of the dependency that a package belongs to.
func homeOf(pkg string) (rule, bool) {
	for _, h := range homes {
		if matches(h.of+"/...", pkg) {
			return h, true
		}
	}
	return rule{}, false
}

func TestEveryRuleHasAReason(t *testing.T) {
	for _, r := range append(rules[:len(rules):len(rules)], homes...) {
		if r.because == "" {
			t.Errorf("the rule of %s gives no reason", r.of)
		}
	}
}
