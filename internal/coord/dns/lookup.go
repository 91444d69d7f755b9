package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"drover/internal/coord"
)

const (
	chain   = 8    // aliases that are followed
	payload = 1232 // bytes of an answer by UDP that no network fragments; longer ones come by TCP
)

func (r Record) check() error {
	if _, ok := dns.IsDomainName(r.Name); !ok || r.Name == "" {
		return fmt.Errorf("%q is no name in DNS", r.Name)
	}
	if r.Port < 0 || r.Port > 65535 {
		return fmt.Errorf("port %d is none", r.Port)
	}
	_, err := r.types()
	return err
}

func (r Record) types() ([]uint16, error) {
	switch strings.ToUpper(r.Type) {
	case "":
		return []uint16{dns.TypeA, dns.TypeAAAA}, nil
	case "A":
		return []uint16{dns.TypeA}, nil
	case "AAAA":
		return []uint16{dns.TypeAAAA}, nil
	case "SRV":
		return []uint16{dns.TypeSRV}, nil
	}
	return nil, fmt.Errorf("type %q is not SRV, A or AAAA", r.Type)
}

// resolver is one lookup's view of the servers.
type resolver struct {
	c       *Catalog
	servers []string
	config  *dns.ClientConfig
}

func (c *Catalog) resolver() (*resolver, error) {
	if c.opt.Config == "" {
		return &resolver{c, c.opt.Servers, &dns.ClientConfig{Ndots: 1}}, nil
	}
	config, err := dns.ClientConfigFromFile(c.opt.Config)
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", coord.ErrUnavailable, c.opt.Config, err)
	}
	r := &resolver{c, c.opt.Servers, config}
	if len(r.servers) == 0 {
		for _, s := range config.Servers {
			r.servers = append(r.servers, net.JoinHostPort(s, config.Port))
		}
	}
	return r, nil
}

// lookup returns the instances of a service, and for how long they hold.
func (c *Catalog) lookup(ctx context.Context, service string, record Record) ([]coord.Instance, time.Duration, error) {
	r, err := c.resolver()
	if err != nil {
		return nil, 0, err
	}
	types, err := record.types()
	if err != nil {
		return nil, 0, err
	}
	if types[0] == dns.TypeSRV {
		return r.services(ctx, service, record.Name)
	}
	found, err := r.addresses(ctx, r.config.NameList(record.Name), types)
	if err != nil {
		return nil, 0, err
	}
	var list []coord.Instance
	for _, a := range found.addresses {
		list = append(list, instance(service, a, record.Port))
	}
	return sorted(list), found.ttl, nil
}

// answer is what is known of a name.
type answer struct {
	exists    bool
	addresses []string
	services  []*dns.SRV
	extra     map[string][]string // addresses of other names that came with it
	ttl       time.Duration
}

// addresses asks for all types, of the first of the names that exists.
func (r *resolver) addresses(ctx context.Context, names []string, types []uint16) (answer, error) {
	all := answer{ttl: r.c.opt.Most}
	for _, name := range names {
		for _, t := range types {
			a, err := r.ask(ctx, name, t)
			if err != nil {
				return answer{}, err
			}
			all.exists = all.exists || a.exists
			all.addresses = append(all.addresses, a.addresses...)
			all.ttl = min(all.ttl, a.ttl)
		}
		if len(all.addresses) > 0 {
			break
		}
	}
	return all, nil
}

// services asks for SRV records, and for the addresses of their targets where the answer did not
// bring them. A target without an address cannot be reached, and is left out.
func (r *resolver) services(ctx context.Context, service, name string) ([]coord.Instance, time.Duration, error) {
	found := answer{ttl: r.c.opt.Most}
	for _, name := range r.config.NameList(name) {
		a, err := r.ask(ctx, name, dns.TypeSRV)
		if err != nil {
			return nil, 0, err
		}
		a.ttl = min(a.ttl, found.ttl)
		if found = a; len(a.services) > 0 {
			break
		}
	}
	var list []coord.Instance
	for _, s := range found.services {
		target := strings.ToLower(s.Target)
		if target == "." { // RFC 2782: the service is decidedly not there
			continue
		}
		addresses := found.extra[target]
		if len(addresses) == 0 {
			a, err := r.addresses(ctx, []string{target}, []uint16{dns.TypeA, dns.TypeAAAA})
			if err != nil {
				return nil, 0, err
			}
			addresses, found.ttl = a.addresses, min(found.ttl, a.ttl)
		}
		for _, a := range addresses {
			i := instance(service, a, int(s.Port))
			i.Node = strings.TrimSuffix(target, ".")
			i.Weight = max(1, int(s.Weight))
			i.Meta = map[string]string{"priority": strconv.Itoa(int(s.Priority))}
			list = append(list, i)
		}
	}
	return sorted(list), found.ttl, nil
}

// ask asks for one type of one name, and follows aliases.
func (r *resolver) ask(ctx context.Context, name string, t uint16) (answer, error) {
	ttl := r.c.opt.Most
	for range chain {
		msg, err := r.exchange(ctx, name, t)
		if err != nil {
			return answer{}, fmt.Errorf("ask for %s of %s: %w", dns.TypeToString[t], name, err)
		}
		a, alias := read(msg, name, t, ttl)
		if alias == "" {
			return a, nil
		}
		name, ttl = alias, a.ttl
	}
	return answer{}, fmt.Errorf("ask for %s of %s: %w: more than %d aliases", dns.TypeToString[t], name, coord.ErrUnavailable, chain)
}

// read takes what counts from an answer. An alias is returned if what it leads to did not come with it.
func read(msg *dns.Msg, name string, t uint16, ttl time.Duration) (a answer, alias string) {
	a = answer{exists: msg.Rcode == dns.RcodeSuccess, extra: map[string][]string{}, ttl: ttl}
	holds := func(h *dns.RR_Header) { a.ttl = min(a.ttl, time.Duration(h.Ttl)*time.Second) }
	owner := dns.CanonicalName(name)
	for range chain { // from alias to alias, in whatever order they came
		next := ""
		for _, rr := range msg.Answer {
			h := rr.Header()
			if dns.CanonicalName(h.Name) != owner {
				continue
			}
			switch rr := rr.(type) {
			case *dns.CNAME:
				holds(h)
				next = dns.CanonicalName(rr.Target)
			case *dns.A, *dns.AAAA:
				if h.Rrtype == t {
					holds(h)
					a.addresses = append(a.addresses, address(rr))
				}
			case *dns.SRV:
				if t == dns.TypeSRV {
					holds(h)
					a.services = append(a.services, rr)
				}
			}
		}
		if next == "" {
			break
		}
		owner = next
	}
	for _, rr := range msg.Extra {
		if text := address(rr); text != "" && t == dns.TypeSRV {
			holds(rr.Header())
			target := dns.CanonicalName(rr.Header().Name)
			a.extra[target] = append(a.extra[target], text)
		}
	}
	if len(a.addresses) > 0 || len(a.services) > 0 {
		return a, ""
	}
	for _, rr := range msg.Ns { // RFC 2308: for how long there is nothing
		if soa, ok := rr.(*dns.SOA); ok {
			a.ttl = min(a.ttl, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
		}
	}
	if a.exists && owner != dns.CanonicalName(name) {
		return a, owner
	}
	return a, ""
}

// address is that of an A or AAAA record, or empty.
func address(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		if rr.A != nil {
			return rr.A.String()
		}
	case *dns.AAAA:
		if rr.AAAA != nil {
			return rr.AAAA.String()
		}
	}
	return ""
}

// exchange asks one server after another, twice, until one says that the name has such
// records, has none, or does not exist. Errors: ErrUnavailable.
func (r *resolver) exchange(ctx context.Context, name string, t uint16) (*dns.Msg, error) {
	var errs []error
	for range 2 {
		for _, server := range r.servers {
			msg, err := r.once(ctx, server, name, t)
			if err == nil && (msg.Rcode == dns.RcodeSuccess || msg.Rcode == dns.RcodeNameError) {
				return msg, nil
			}
			if err == nil {
				err = fmt.Errorf("%s answers %s", server, dns.RcodeToString[msg.Rcode])
			}
			if len(errs) < len(r.servers) {
				errs = append(errs, err)
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("%w: %w", coord.ErrUnavailable, ctx.Err())
			}
		}
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%w: no server is configured", coord.ErrUnavailable)
	}
	return nil, fmt.Errorf("%w: %w", coord.ErrUnavailable, errors.Join(errs...))
}

// once asks one server by UDP, and by TCP if the answer was cut.
func (r *resolver) once(ctx context.Context, server, name string, t uint16) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		q := new(dns.Msg)
		q.SetQuestion(name, t)
		q.SetEdns0(payload, false)
		limited, cancel := context.WithTimeout(ctx, r.c.opt.Timeout)
		client := dns.Client{Net: network, Timeout: r.c.opt.Timeout}
		msg, _, err := client.ExchangeContext(limited, q, server)
		cancel()
		if err != nil {
			return nil, err
		}
		if len(msg.Question) != 1 || msg.Question[0].Qtype != t || !strings.EqualFold(msg.Question[0].Name, name) {
			return nil, fmt.Errorf("%s answers another question", server)
		}
		if !msg.Truncated {
			return msg, nil
		}
	}
	return nil, fmt.Errorf("%s cuts its answer", server)
}
