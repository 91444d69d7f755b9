package dns

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// ParseURL reads dns://server:53/domain?type=SRV&port=80. Without a server it is the
// system's servers and its search list, without a domain names are asked for as they are;
// the port is that of A and AAAA.
func ParseURL(u *url.URL) (Options, error) {
	if u.Scheme != "dns" || u.Opaque != "" || u.User != nil || u.Fragment != "" {
		return Options{}, fmt.Errorf("%s is not dns://SERVER:53/DOMAIN", u.Redacted())
	}
	r := Record{Name: strings.Trim(u.Path, "/")}
	if r.Name != "" && u.Host != "" {
		r.Name = strings.TrimSuffix(r.Name, ".") + "." // who names a server has no search list
	}
	for key, values := range u.Query() {
		switch key {
		case "type":
			r.Type = values[0]
		case "port":
			port, err := strconv.Atoi(values[0])
			if err != nil {
				return Options{}, fmt.Errorf("dns URL: port %q is no number", values[0])
			}
			r.Port = port
		default:
			return Options{}, fmt.Errorf("dns URL: parameter %q is not type or port", key)
		}
	}
	o := Options{Domain: &r}
	if u.Host != "" {
		port := u.Port()
		if port == "" {
			port = "53"
		}
		o.Servers = []string{net.JoinHostPort(u.Hostname(), port)}
	}
	return o, nil
}
