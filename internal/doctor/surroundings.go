package doctor

import (
	"fmt"
	"strings"
)

func judgeSecrets(f *Facts) []Finding {
	var all []Finding
	for _, s := range f.Secrets {
		found := Finding{ID: IDSecret, Severity: Risk, Where: s.Where, Mend: mendSecret(s)}
		what := s.Name
		if s.InURL {
			what += " has a URL with a password, and"
		}
		switch {
		case f.inside():
			found.What = what + " is in the environment"
			found.Reason = "every process here and every docker inspect shows it"
		case s.Origin == Literal:
			found.What = what + " stands here in the clear"
			found.Reason = "it is in the file, in its history, and in every docker inspect"
		case s.Origin == Fallback:
			found.What = what + " has a default that stands here in the clear"
			found.Reason = "where nobody sets another, it is a password that everyone can read"
		default:
			found.Severity = Note
			found.What = what + " comes from another variable"
			found.Reason = "it is not in the file, but in every docker inspect"
		}
		all = append(all, found)
	}
	return all
}

func mendSecret(s Secret) string {
	switch {
	case s.InURL:
		return "take the password out of the URL; give it in a file"
	case s.Name == "DROVER_PASSWORD" || s.Name == "DROVER_MIRROR_PASSWORD":
		return "a secret's file, and " + s.Name + "_FILE=/run/secrets/NAME"
	case strings.HasPrefix(s.Name, "AWS_"):
		return "a secret's file in the form of ~/.aws/credentials, and credentials=/run/secrets/NAME in the store's URL"
	default:
		return "a secret's file, and the variable that names it, often " + s.Name + "_FILE"
	}
}

// judgeRights asks what the instance may do to its host.
func judgeRights(f *Facts) []Finding {
	var all []Finding
	if f.Privileged.given() {
		all = append(all, Finding{
			ID: IDPrivileged, Severity: Risk, Where: f.Privileged.Where,
			What:   "it is privileged",
			Reason: "it may do anything to its host, and so comes to depend on what is there",
			Mend:   "name the capabilities that it needs (cap_add); Drover needs none",
		})
	}
	if f.HostNetwork.given() {
		all = append(all, Finding{
			ID: IDHostNetwork, Severity: Risk, Where: f.HostNetwork.Where,
			What:   "it uses the host's network",
			Reason: "its ports are the host's, so that two instances cannot share one, and localhost is the host",
			Mend:   "a network of the project, and ports for what is reached from outside",
		})
	}
	return all
}

// judgeCopies asks whether there can be a second instance.
func judgeCopies(f *Facts) []Finding {
	var all []Finding
	if f.Name.given() {
		all = append(all, Finding{
			ID: IDContainerName, Severity: Risk, Where: f.Name.Where,
			What:   fmt.Sprintf("the container's name is fixed: %q", f.Name.Value),
			Reason: "a second one cannot be started: no standby, no --scale, no planned move on this host",
			Mend:   "take it out; the service's name is what others find it by",
		})
	}
	for _, port := range f.Ports {
		all = append(all, Finding{
			ID: IDFixedPort, Severity: Note, Where: port.Where,
			What:   "the host's port is fixed: " + port.Value,
			Reason: "two instances cannot share a host: a standby has to be on another one",
			Mend:   "publish the container's port alone, or put a proxy in front",
		})
	}
	return all
}

// judgeLimitsOfSight says what was not judged.
func judgeLimitsOfSight(f *Facts) []Finding {
	var all []Finding
	if !f.inside() && len(f.Mounts) == 0 && len(f.Borrowed) == 0 && !f.Drover {
		all = append(all, Finding{
			ID: IDStateless, Severity: Note, Where: f.Where,
			What:   "it has no mount, and was not judged for mounts",
			Reason: "it looks stateless; what it writes is lost with its container",
			Mend:   "nothing, or drover run --state PATH in front of its command",
		})
	}
	for _, u := range f.Unread {
		all = append(all, Finding{
			ID: IDNotJudged, Severity: Note, Where: u.Where, What: u.Value,
			Reason: "what is in it is not judged", Mend: "nothing, or make it readable from here",
		})
	}
	return all
}
