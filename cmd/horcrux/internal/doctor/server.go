package doctor

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"horcrux/cmd/horcrux/internal/datadir"
	"horcrux/pkg/openapi"
	"horcrux/services/api/listen"
)

// server asks the one that has the data dir, if any, for its version and what it says of its dependencies.
func (h *host) server(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	first := Finding{Name: "server", For: "all of it"}
	pid, _ := datadir.Holder(h.DataDir) // what is in the way is said of the data dir
	local := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.socket())
	}}
	defer local.CloseIdleConnections()
	client := &http.Client{Transport: local}
	var running openapi.Version
	err := get(ctx, client, "/api/version", &running)
	serves := slices.Contains(h.Config.Services, "api")
	switch {
	case err != nil && pid == 0:
		first.Status, first.What = OK, "none runs; horcrux serve starts one"
		return []Finding{first}
	case err != nil && !serves:
		first.Status, first.What = OK, fmt.Sprintf("pid %d, without REST", pid)
		return []Finding{first}
	case err != nil:
		first.Status, first.What = Fail, fmt.Sprintf("pid %d has the data dir and does not answer on %s: %s", pid, h.socket(), why(ctx, err))
		first.Mend = fmt.Sprintf("see what it prints; when it goes on, kill %d and horcrux serve", pid)
		return []Finding{first}
	}
	first.Status, first.Version, first.What = OK, running.Version, "answers on "+h.socket()
	switch running.Version {
	case h.Version:
	case "": // as a problem has none
		first.What += ", whose version is not told to " + me()
	default:
		first.Status, first.What, first.Mend = Warn, "runs another version than this binary's, "+h.Version, "stop it, and horcrux serve"
	}
	found := []Finding{first}
	var ready openapi.Readiness
	if err := get(ctx, client, "/readyz", &ready); err != nil {
		first.Name, first.Status, first.What, first.Mend = "server readiness", Fail, why(ctx, err), "see what the server prints"
		return append(found, first)
	}
	for _, d := range ready.Dependencies {
		f := Finding{Name: "server " + d.Name, Status: OK, What: "the server says that it is ready", For: "the running server"}
		if !d.Ready {
			f.Status, f.What, f.Mend = Fail, d.Detail, "see what is said above of what it stands on, and what the server prints"
		}
		found = append(found, f)
	}
	return found
}

// socket is where the server is asked; a link there leads to wherever it is.
func (h *host) socket() string {
	path := filepath.Join(h.DataDir, "api.sock")
	if short, err := filepath.EvalSymlinks(path); err == nil {
		return short
	}
	return path
}

// get reads an answer of the server, whatever its status.
func get(ctx context.Context, client *http.Client, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return errors.Unwrap(err) // without the URL, which is not one that a person could ask
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("the answer to %s: %w", path, err)
	}
	return nil
}

// listener looks whether the address can be had, or is the server's already.
func listener(ctx context.Context, h *host) Finding {
	address := h.Config.Listen
	if address == "" {
		return ok("", "not asked for; REST is on the socket alone")
	}
	l, err := listen.TCP(address)
	if err == nil {
		return closeFree(l, address)
	}
	if h.ours(ctx, address) {
		return ok("", address+", where this installation's server listens")
	}
	_, port, _ := net.SplitHostPort(address) // as the configuration has checked
	return fail(line(err.Error()), asRoot("ss -ltnp 'sport = :"+port+"'")+" says who has it")
}

func closeFree(l net.Listener, address string) Finding {
	if err := l.Close(); err != nil {
		return warn(address+": "+err.Error(), "")
	}
	return ok("", address+" is free")
}

// warnCA is how long before its end a CA is spoken of: every client has to be given the new one.
const warnCA = 90 * 24 * time.Hour

// certificates looks at the ends of those of the data dir. A server's is renewed by each start and while it serves.
func certificates(_ context.Context, h *host) Finding {
	const anew = "stop the server, remove ca.pem, ca-key.pem and server.pem of the data dir, and start it; clients need the new ca.pem"
	ca, err := listen.ReadCertificate(h.DataDir, listen.CAFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok("", "the first start will make them")
	case errors.Is(err, fs.ErrPermission):
		return closed(filepath.Join(h.DataDir, listen.CAFile), h)
	case err != nil:
		return fail(line(err.Error()), anew)
	}
	now := time.Now()
	what := "the CA is valid until " + ca.NotAfter.Format(time.DateOnly)
	switch {
	case now.Before(ca.NotBefore):
		return fail("the CA is valid from "+ca.NotBefore.Format(time.DateTime)+" only: the clock is wrong", "date")
	case now.After(ca.NotAfter):
		return fail("the CA was valid until "+ca.NotAfter.Format(time.DateOnly), anew)
	case now.Add(warnCA).After(ca.NotAfter):
		return warn(what, anew)
	}
	server, err := listen.ReadCertificate(h.DataDir, listen.ServerFile)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return warn(what+"; not looked at: the server's is closed to "+me(), "sudo horcrux doctor --data-dir "+h.DataDir)
	case err != nil:
		return ok("", what+"; the next start will make the server's")
	case now.After(server.NotAfter):
		return warn(what+", the server's was until "+server.NotAfter.Format(time.DateOnly), "start the server, which renews it")
	}
	return ok("", what+", the server's until "+server.NotAfter.Format(time.DateOnly))
}

// ours says whether a listener shows a certificate of this installation's CA.
func (h *host) ours(ctx context.Context, address string) bool {
	ca, err := listen.ReadCertificate(h.DataDir, listen.CAFile)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return shows(ctx, address, roots)
}
