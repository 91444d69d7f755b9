package containerpilot

import (
	"regexp"
	"strings"
)

// What is said of a catalog that is not there, or not as Drover needs it.
const (
	noCatalog    = "needs a catalog, and this file names none that Drover can use"
	noHost       = "names no host that Drover can use as coordinator"
	hiddenText   = "…" // in place of what may hold a token
	tokenInFile  = "is in the clear in this file: token_file names a better place"
	tokenOutside = `was read together with the CONSUL_ variables, which Drover does not look at: write token: '{{ .CONSUL_HTTP_TOKEN | default "" }}' if you set that one`
	unverified   = "was spoken to without a look at its certificate, which is verified now: ca names whom to trust, if not those whom the system trusts"
)

// hostPort is an address that a coordinator's URL takes.
var (
	hostPort = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})$`)
	hostOnly = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$`)
	portLast = regexp.MustCompile(`:[0-9]{1,5}$`)
)

// server is where a catalog is.
type server struct {
	address string // host:port, perhaps with actions
	tls     bool
	unsure  string // what is to be seen to; "": nothing
}

// serverOf reads an address with or without a scheme. ok is false if a URL of Drover's
// cannot name it.
func serverOf(s string, tls bool) (at server, ok bool) {
	at.tls = tls
	s = strings.TrimSpace(s)
	if rest, is := strings.CutPrefix(s, "https://"); is {
		s, at.tls = rest, true
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "http://"), "/")
	at.address = s
	if !templated(s) {
		if hostOnly.MatchString(s) {
			at.address += map[bool]string{false: ":80", true: ":443"}[at.tls]
			at.unsure = "has no port, which means " + at.address[len(s)+1:] + "; Consul's own is 8500, etcd's 2379"
		}
		return at, validPort(portLast.FindString(at.address)) && hostPort.MatchString(at.address)
	}
	all := parts(s)
	for _, p := range all {
		if !p.action && strings.ContainsAny(p.text, "/@, \t\r\n") {
			return at, false
		}
	}
	if last := all[len(all)-1]; last.action || !portLast.MatchString(last.text) {
		at.unsure = "must make host:port, without a scheme"
	}
	return at, true
}

// validPort says whether s, perhaps with a colon before it, is a port.
func validPort(s string) bool {
	s = strings.TrimLeft(strings.TrimPrefix(s, ":"), "0")
	return s != "" && wholeNumber.MatchString(s) && (len(s) < 5 || len(s) == 5 && s <= "65535")
}

// consulServer is where Consul is. Without an address it is where its client looks.
func consulServer(n *node) (at server, ok bool) {
	if n == nil {
		return at, false
	}
	if s, ok := single(n); ok {
		return serverOf(s, false)
	}
	if n.kind != object || n.conditional() {
		return at, false
	}
	scheme, given := single(n.get("scheme"))
	if given && !contains([]string{"", "http", "https"}, scheme) {
		return at, false
	}
	s, _ := single(n.get("address"))
	if n.get("address") == nil || s == "" {
		s = "127.0.0.1:8500"
	}
	return serverOf(s, scheme == "https")
}

// etcdServers is where etcd is; address holds all of them.
func etcdServers(n *node) (at server, ok bool) {
	if n == nil || n.kind != object || n.conditional() {
		return at, false
	}
	all, ok := texts(n.get("endpoints"))
	if !ok || len(all) == 0 {
		return at, false
	}
	var addresses []string
	for i, s := range all {
		one, ok := serverOf(s, false)
		if !ok || i > 0 && one.tls != at.tls {
			return at, false
		}
		at.tls = one.tls
		if one.unsure != "" {
			at.unsure = one.unsure
		}
		addresses = append(addresses, one.address)
	}
	at.address = strings.Join(addresses, ",")
	return at, true
}

// findCatalog looks whether there will be a coordinator, before anything needs one.
func (c *conversion) findCatalog(root *node) {
	for _, e := range root.entries {
		ok := false
		switch e.key {
		case "consul":
			_, ok = consulServer(e.value)
		case "etcd":
			_, ok = etcdServers(e.value)
			ok = ok && c.version == 2
		}
		c.catalog = c.catalog || ok
	}
}

// hide is leave for what may hold a token.
func (c *conversion) hide(indent int, n *node, key, what string) {
	c.noteAt(n.at, key, hiddenText, what)
	c.out.comment(indent, "containerpilot: "+key+": "+hiddenText+" "+what)
}

// coordinator begins that section; consul and etcd write the rest.
func (c *conversion) coordinator(n *node, key, url string, at server) {
	if at.unsure != "" {
		c.noteAt(n.at, key, at.address, at.unsure)
	}
	url = c.scalar(n, url+at.address, key)
	if n.kind != object && !at.tls {
		c.out.add(0, "coordinator: "+url)
		return
	}
	c.out.add(0, "coordinator:")
	c.out.add(2, "url: "+url)
	if at.tls {
		c.out.add(2, "tls: true")
	}
}

// consul writes where Consul is.
func (c *conversion) consul(n *node) {
	at, ok := consulServer(n)
	if !ok {
		c.hide(0, n, "consul", noHost)
		return
	}
	c.coordinator(n, "consul", "consul://", at)
	c.members(2, n, func(e entry) {
		key := "consul." + e.key
		switch s, ok := single(e.value); {
		case e.key == "address", e.key == "scheme":
		case e.key == "token" && ok && s == "":
		case e.key == "token" && ok:
			c.out.add(2, "token: "+c.scalar(e.value, s, key))
			c.noteAt(e.value.at, key, hiddenText, tokenInFile)
		case e.key == "tls":
			c.consulTLS(e.value, at.tls)
		default:
			c.hide(2, e.value, key, unknownKey)
		}
	})
	shown := hiddenText
	if n.kind != object {
		shown = c.source[n.at:n.end] // an address and nothing else, or it would not have been read
	}
	if n.get("token") == nil {
		c.noteAt(n.at, "consul", shown, tokenOutside)
	}
	if at.tls && n.get("tls").get("verify") == nil {
		c.noteAt(n.at, "consul", shown, unverified)
	}
}

// members calls fn for every member of an object, with its comments before.
func (c *conversion) members(indent int, n *node, fn func(e entry)) {
	if n.kind != object {
		return
	}
	c.each(indent, n, func(e entry) {
		c.comments(indent, e)
		fn(e)
	})
}

// consulTLS writes whom to trust, and what to show.
func (c *conversion) consulTLS(n *node, tls bool) {
	const at = "consul.tls"
	if n.kind != object || n.conditional() {
		c.leave(2, n, at, noBetween)
		return
	}
	if !tls {
		c.leave(2, n, at, "has no effect: the scheme is http")
		return
	}
	given := func(key string) string {
		s, _ := single(n.get(key))
		return s
	}
	c.members(2, n, func(e entry) {
		s, _ := single(e.value)
		at := at + "." + e.key
		switch {
		case e.key == "verify" && s == "true", e.key != "verify" && s == "":
		case e.key == "verify":
			c.note(e.value, at, unverified)
		case e.key == "cafile":
			c.out.add(2, "ca: "+c.scalar(e.value, s, at))
		case e.key == "clientcert" && given("clientkey") != "":
			c.out.add(2, "cert: "+c.scalar(e.value, s, at))
		case e.key == "clientkey" && given("clientcert") != "":
			c.out.add(2, "key: "+c.scalar(e.value, s, at))
		case e.key == "clientcert", e.key == "clientkey":
			c.leave(2, e.value, at, "has no effect: a certificate and its key belong together")
		case e.key == "capath":
			c.leave(2, e.value, at, "has no equal: ca is one file, which can hold all of them")
		case e.key == "servername":
			c.leave(2, e.value, at, "has no equal: the certificate must be for the name in the URL")
		default:
			c.leave(2, e.value, at, unknownKey)
		}
	})
}

// etcd writes where etcd is.
func (c *conversion) etcd(n *node) {
	at, ok := etcdServers(n)
	if !ok {
		c.hide(0, n, "etcd", noHost)
		return
	}
	c.coordinator(n, "etcd", "etcd://", at)
	c.note(n, "etcd", "was spoken to in version 2 of its API, and is in version 3 now: instances under ContainerPilot and under Drover do not see one another")
	c.members(2, n, func(e entry) {
		switch e.key {
		case "endpoints":
		case "prefix":
			c.leave(2, e.value, "etcd.prefix", "has no equal: Drover's catalog is not ContainerPilot's; its own keys are below prefix, which is drover/SERVICE")
		default:
			c.leave(2, e.value, "etcd."+e.key, unknownKey)
		}
	})
}
