package serve

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/google/uuid"

	"horcrux/cmd/horcrux/internal/build"
	"horcrux/cmd/horcrux/internal/config"
	"horcrux/pkg/bus"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api"
	"horcrux/services/api/listen"
	"horcrux/services/api/rest"
	"horcrux/services/api/telemetry"
	"horcrux/services/storage"
)

// address is where the gateway's TLS listener is to be, "" for none.
func (s *server) address() string {
	if !build.Built("ssl") && s.config.Listen == config.Default().Listen {
		return "" // nobody asked for it
	}
	return s.config.Listen
}

// port fails where the gateway's port is taken. The gateway itself would find that out when all else is up.
func (s *server) port(context.Context) error {
	if !s.serves("api") || s.address() == "" {
		return nil
	}
	l, err := listen.TCP(s.address())
	if err != nil {
		return err
	}
	return l.Close()
}

// gateway opens the doors and says where they are.
func (s *server) gateway(ctx context.Context) error {
	if !s.serves("api") {
		return nil
	}
	roster, err := s.bus.Roster(time.Now)
	if err != nil {
		return err
	}
	s.stack.push("roster", func(context.Context) error { return roster.Close() })
	ready := map[string]rest.Check{}
	for k, check := range s.ready {
		ready[k] = check
	}
	wake, stop := s.bus.Nudges()
	s.stack.push("gateway's nudges", func(context.Context) error { stop(); return nil })
	svc, err := api.New(ctx, api.Options{
		Store: s.store, Bus: s.bus, Wake: wake, Pool: s.pool, DataDir: s.dir.Root, Socket: s.dir.APISocket(), Listen: s.address(),
		Names: []string{s.nodeName()}, Log: s.log.With("part", "api"), Ready: ready, ImageDirs: s.imageDirs(), Secrets: s.vault, Deadline: s.config.Deadline,
		Elsewhere:  func() map[string]error { return s.elsewhere(roster.Services()) },
		Collectors: s.seen,
		Features:   build.Features(),
		Version:    openapi.Version{Version: build.Version, Commit: build.Commit, Go: runtime.Version()},
		Node: func(_ context.Context, ref string) (uuid.UUID, error) {
			if here := s.serves("compute") || s.serves(storage.Domain); here && (ref == s.node.String() || ref == s.nodeName()) {
				return s.node, nil
			}
			id, err := roster.Node(ref)
			if err != nil {
				return uuid.Nil, problem.Invalid(problem.Field{Field: "node", Detail: "is the name of several nodes; give the id"})
			}
			if id != uuid.Nil {
				return id, nil
			}
			return uuid.Nil, problem.New(problem.NotFound, "there is no node %q", ref)
		},
		Nodes: func() []telemetry.Node { return hosts(roster.Services()) },
	})
	if err != nil {
		return err
	}
	s.stack.run("api", svc.Run)
	for _, a := range svc.Addresses() {
		fmt.Fprintln(s.out, "listening on", a)
	}
	fmt.Fprintln(s.out, "administrator token in", svc.TokenFile())
	return nil
}

// hosts are the nodes on which virtual machines can be. What this process offers, the roster has heard too.
func hosts(known []bus.Service) (out []telemetry.Node) {
	for _, k := range known {
		if k.Domain == vm.Resource.Domain {
			out = append(out, telemetry.Node{ID: k.Node, Name: k.Name})
		}
	}
	return out
}
