// Package doctor looks at everything that a server of this host stands on, as the configuration has it, and says of
// each thing which version it is, what is wrong with it and the command that mends it. It changes nothing, and needs
// neither a running server nor root: what it may not look at it says.
package doctor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"horcrux/cmd/horcrux/internal/config"
)

// Status of one thing.
type Status string

// OK works; Warn works without something, or could not be looked at; Fail does not work.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is what there is to say of one thing.
type Finding struct {
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Version string `json:"version"` // "" where there is none, or none is known
	What    string `json:"what"`
	Mend    string `json:"mend"`    // a command, or what else to do; "" where nothing is wrong
	For     string `json:"for"`     // what it is needed for
	Service string `json:"service"` // the service that needs it; "" for every one
	Use     string `json:"use"`     // the USE flag without which it is not needed; "" where it always is
}

// Options of a look.
type Options struct {
	// Config is what serve would run with.
	Config *config.Loaded
	// DataDir is the installation's folder, which need not exist.
	DataDir string
	// Version is this binary's, Built says which USE flags it has.
	Version string
	Built   func(flag string) bool
	// Root is the folder that files of the system are looked for in. "" is /; tests have one of their own.
	Root string
	// Timeout is how long one thing may take to answer. 0 means 5 s.
	Timeout time.Duration
}

// check is one thing to look at.
type check struct {
	name    string
	purpose string
	service string
	use     string
	look    func(context.Context, *host) Finding
}

// host is what all checks share.
type host struct {
	Options
	distro distro
}

// Run looks at everything that the configuration asks for and returns the findings in the order of the checks.
func Run(ctx context.Context, o Options) []Finding {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	h := &host{Options: o, distro: readDistro(o.Root)}
	all := slices.DeleteFunc(checks(h), func(c check) bool {
		return c.use != "" && !o.Built(c.use) || c.service != "" && !slices.Contains(o.Config.Services, c.service)
	})
	found := make([]Finding, len(all))
	var looks sync.WaitGroup
	for i, c := range all {
		looks.Go(func() { found[i] = h.look(ctx, c) }) // ends with its deadline
	}
	looks.Wait()
	return append(found, h.server(ctx)...)
}

// look makes one check, which knows what it found, into a whole finding.
func (h *host) look(ctx context.Context, c check) Finding {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	f := c.look(ctx, h)
	f.Name, f.For, f.Service, f.Use = c.name, c.purpose, c.service, c.use
	return f
}

// checks are all that there are, in the order in which a person mends them.
func checks(h *host) []check {
	all := []check{
		{name: "configuration", purpose: "what the server is set to", look: configuration},
		{name: "clock", purpose: "the times of events and certificates", look: clock},
		{name: "open-files", purpose: "connections of clients and guests", look: openFiles},
		{name: "data-dir", purpose: "all that the installation keeps", look: dataDir},
		{name: "disk-space", purpose: "the log, volumes and images", look: diskSpace},
		{name: "image-dirs", purpose: "kernels, ISOs and disk images", look: imageDirs},
		{name: "listen", purpose: "REST over HTTPS", service: "api", use: "ssl", look: listener},
		{name: "certificates", purpose: "REST over HTTPS", service: "api", use: "ssl", look: certificates},
	}
	if h.Config.Database == "" {
		all = append(all, check{name: "postgres", purpose: "the log of events", look: postgresProgram})
	} else {
		all = append(all, check{name: "database", purpose: "the log of events", look: database})
	}
	if h.Config.NATS.URL != "" {
		all = append(all, check{name: "nats", purpose: "commands and events between services", look: broker})
	}
	all = append(all, qemuImg.check())
	return append(all, qemuChecks()...)
}

func ok(version, what string) Finding { return Finding{Status: OK, Version: version, What: what} }

func warn(what, mend string) Finding { return Finding{Status: Warn, What: what, Mend: mend} }

func fail(what, mend string) Finding { return Finding{Status: Fail, What: what, Mend: mend} }

// why is the cause of an error as a person is told it: a deadline says so, and nothing is longer than a line.
func why(ctx context.Context, err error) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "no answer in time"
	}
	return line(err.Error())
}

func configuration(_ context.Context, h *host) Finding {
	if h.Config.File == "" {
		return ok("", "no file; flags, environment and defaults")
	}
	return ok("", h.Config.File)
}
