package system_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"horcrux/pkg/openapi"
	"horcrux/pkg/openapi/openapitest"
	"horcrux/test/instance"
)

// TestServe starts, configures and asks a server that has no hypervisor.
func TestServe(t *testing.T) {
	i := bareInstance(t)
	config := filepath.Join(filepath.Dir(i.Dir), "horcrux.yaml")
	i.Args = append(i.Args, "--config", config)
	configure := func(t *testing.T, text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	configure(t, "log:\n  level: info\n")

	i.Run(t, "a first start that is cut off is done again", func(t *testing.T) {
		i.Launch()
		instance.Eventually(t, 30*time.Second, "the making of Postgres has begun", func() bool {
			found, err := filepath.Glob(filepath.Join(i.Dir, "postgres*"))
			return err == nil && len(found) > 0
		})
		i.Kill()
		i.Start()
	})
	i.Run(t, "a second one is kept out", func(t *testing.T) {
		r := i.CLI("serve", "--data-dir", i.Dir, "--listen", "127.0.0.1:0")
		if want := fmt.Sprintf("in use by another horcrux (pid %d)", i.Pid()); r.Code == 0 || !strings.Contains(r.Err, want) || strings.Count(r.Err, "\n") != 1 {
			t.Errorf("%d %q", r.Code, r.Err)
		}
		i.Get("/healthz", &openapi.Health{})
	})
	i.Run(t, "a port that is taken ends the start", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		other := bareInstance(t)
		other.Args = append(other.Args, "--listen", l.Addr().String())
		r := other.CLI(append([]string{"serve", "--data-dir", other.Dir}, other.Args...)...)
		last := r.Err[strings.LastIndex(strings.TrimSpace(r.Err), "\n")+1:]
		if r.Code == 0 || !strings.Contains(last, "port "+port+" is in use") || !strings.Contains(last, "--listen") {
			t.Errorf("%d %q", r.Code, last)
		}
		if left := processes(t, other); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	i.Run(t, "who may come in", func(t *testing.T) { comeIn(t, i) })
	i.Run(t, "SIGHUP reads the configuration again", func(t *testing.T) {
		said := func(what string) {
			t.Helper()
			instance.Eventually(t, 10*time.Second, "the log says "+what, func() bool { return strings.Contains(i.Log(), what) })
		}
		configure(t, "log:\n  level: debug\ndeadline: 5m\n")
		i.Signal(syscall.SIGHUP)
		said(`"taken":["log.level"],"wait for a restart":["deadline"]`)
		i.Get("/healthz", &openapi.Health{})
		said(`"level":"DEBUG","msg":"answered"`)
		configure(t, "log:\n  level: info\n  colour: red\n")
		i.Signal(syscall.SIGHUP)
		said("the configuration is not taken")
		said(config + ":3: unknown key log.colour")
		i.Get("/healthz", &openapi.Health{})
	})
	i.Run(t, "--check-config says what holds and why", func(t *testing.T) {
		configure(t, "log:\n  level: warn\ndatabase: postgres://u:secret@h/d\n")
		r := i.CLI("serve", "--check-config", "--config", config, "--deadline", "1m")
		for _, want := range []string{
			`log.level +"warn" +` + regexp.QuoteMeta(config) + `:2`, `deadline +"1m0s" +--deadline`, `listen +"[^"]+:8006" +default`,
			`data_dir +"` + regexp.QuoteMeta(i.Dir) + `" +HORCRUX_DATA_DIR`,
		} {
			if !regexp.MustCompile(want).MatchString(r.Out) {
				t.Errorf("no %s in\n%s", want, r.Out)
			}
		}
		if r.Code != 0 || strings.Contains(r.Out, "secret") {
			t.Errorf("%d %s", r.Code, r.Out)
		}
		configure(t, "log:\n  level: info\nlisten: nowhere\ncolour: red\n")
		r = i.CLI("serve", "--check-config", "--config", config)
		if r.Code == 0 || !strings.Contains(r.Err, config+":3: listen") || !strings.Contains(r.Err, config+":4: unknown key colour") {
			t.Errorf("%d %s", r.Code, r.Err)
		}
	})
	i.Run(t, "SIGTERM ends all that is ours", func(t *testing.T) {
		i.Stop()
		if left := processes(t, i); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
		configure(t, "") // for the start that cleans up
	})
}

// comeIn tries every door with and without a key.
func comeIn(t *testing.T, i *instance.Instance) {
	address := regexp.MustCompile(`listening on (https://\S+)`).FindAllStringSubmatch(i.Log(), -1)
	token, err := os.ReadFile(filepath.Join(i.Dir, "admin.token"))
	ca, caErr := os.ReadFile(filepath.Join(i.Dir, "ca.pem"))
	if err != nil || caErr != nil || len(address) == 0 {
		t.Fatal(address, err, caErr)
	}
	if info, err := os.Stat(filepath.Join(i.Dir, "admin.token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v %v", info.Mode(), err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	tcp := &http.Client{Transport: openapitest.Transport(t, transport), Timeout: time.Minute}
	right := "Bearer " + strings.TrimSpace(string(token))
	for _, c := range []struct {
		path, authorization string
		status              int
	}{
		{"/api/vms", "", 401},
		{"/api/vms", right + "x", 401},
		{"/api/vms", "Bearer hx_" + strings.Repeat("A", 43), 401},
		{"/api/vms", "Basic cm9vdDpyb290", 401},
		{"/api/vms", right, 200},
		{"/api/nothing", "", 401},
		{"/api/openapi.json", "", 401},
		{"/metrics", "", 401},
		{"/metrics", right, 200},
		{"/healthz", "", 200},
		{"/readyz", "", 503}, // answered: it has no hypervisor
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address[len(address)-1][1]+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.authorization != "" {
			req.Header.Set("Authorization", c.authorization)
		}
		res, err := tcp.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s with %q: %d, want %d", c.path, c.authorization, res.StatusCode, c.status)
		}
	}

	if os.Geteuid() != 0 {
		t.Skip("real: root: only root can ask as somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	const denied = 5 // the exit code
	if r := i.CLIAs(uint32(uid), "vm", "list"); r.Code != denied || !strings.Contains(r.Err, "uid:"+nobody.Uid+" lacks the privilege vm.read") {
		t.Errorf("as nobody: %d %s%s", r.Code, r.Out, r.Err)
	}
	if r := i.CLI("vm", "list"); r.Code != 0 {
		t.Errorf("as root: %d %s", r.Code, r.Err)
	}
}
