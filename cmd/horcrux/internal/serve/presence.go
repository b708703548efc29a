package serve

import (
	"context"
	"os"
	"slices"
	"time"

	"horcrux/cmd/horcrux/internal/build"
	"horcrux/pkg/bus"
	"horcrux/pkg/problem"
	"horcrux/services/storage"
)

// nodeName is the label of this node; "" for a host without a name, which is found by its id.
func (s *server) nodeName() string {
	if s.config.Node.Name != "" {
		return s.config.Node.Name
	}
	name, _ := os.Hostname()
	return name
}

// offer tells gateways of a service of this process and of what it depends on.
func (s *server) offer(domain, dependency string, ready func(context.Context) error) {
	s.ready[dependency] = ready
	s.stack.run("announcement of "+domain, func(ctx context.Context) error {
		return s.bus.Announce(ctx, func(ctx context.Context) bus.Presence {
			detail := ""
			if err := ready(ctx); err != nil {
				detail = "it does not answer; see the log of the node"
				if p := problem.From(err); p != nil {
					detail = p.Detail
				}
			}
			return bus.Presence{Domain: domain, Node: s.node, Name: s.nodeName(), Dependencies: map[string]string{dependency: detail}}
		})
	})
}

// elsewhere says how the services of other processes do, each by the name of its dependency and node, and which kind
// of service nobody serves.
func (s *server) elsewhere(known []bus.Service) map[string]error {
	out := map[string]error{}
	for _, domain := range expected() {
		if !s.serves(domain) && !slices.ContainsFunc(known, func(k bus.Service) bool { return k.Domain == domain }) {
			out[domain] = problem.New(problem.Unavailable, "no %s service has been heard of", domain)
		}
	}
	for _, k := range known {
		if k.Node == s.node && s.serves(k.Domain) {
			continue
		}
		at := "@" + k.Name
		if k.Name == "" || slices.ContainsFunc(known, func(o bus.Service) bool { return o.Name == k.Name && o.Node != k.Node }) {
			at = "@" + k.Node.String()
		}
		if k.Silent > 0 {
			out[k.Domain+at] = problem.New(problem.Unavailable, "nothing has been heard of it for %s", k.Silent.Round(time.Second))
			continue
		}
		for dependency, detail := range k.Dependencies {
			var err error
			if detail != "" {
				err = problem.New(problem.Unavailable, "%s", detail)
			}
			out[dependency+at] = err
		}
	}
	return out
}

// expected are the services without which an installation of this build is not whole.
func expected() []string {
	if build.Built("qemu") {
		return []string{"compute", storage.Domain}
	}
	return []string{storage.Domain}
}
