package system_test

import (
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// TestNoLibvirtInside: without the qemu flag nothing of libvirt is linked.
func TestNoLibvirtInside(t *testing.T) {
	deps := func(tags string) (libvirt []string) {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, "./cmd/horcrux")
		cmd.Dir = instance.Root()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			if strings.Contains(dep, "libvirt") {
				libvirt = append(libvirt, dep)
			}
		}
		return libvirt
	}
	if got := deps("no_qemu"); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
	if got := deps(""); !slices.Contains(got, "github.com/digitalocean/go-libvirt") || !slices.Contains(got, "libvirt.org/go/libvirtxml") {
		t.Errorf("with qemu there is only %q", got)
	}
}

// TestWithoutFeatures runs binaries that were built without some of them.
func TestWithoutFeatures(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	build := func(t *testing.T, tags string) string {
		t.Helper()
		bin, err := instance.Build(t.TempDir(), tags)
		if err != nil {
			t.Fatal(err)
		}
		return bin
	}
	t.Run("qemu and ssl", func(t *testing.T) {
		bin := build(t, "no_qemu no_ssl")
		i := newInstance(t, bin)
		r := i.CLI(append([]string{"serve", "--data-dir", i.Dir}, i.Args...)...)
		if r.Code == 0 || !strings.Contains(r.Err, "without ssl") || !strings.Contains(r.Err, "USE=ssl") {
			t.Errorf("--listen without ssl: %d %s", r.Code, r.Err)
		}
		i.Args = nil
		i.Start()
		if log := i.Log(); strings.Contains(log, "https://") {
			t.Errorf("it listens for TLS:\n%s", log)
		}
		var features openapi.FeatureList
		i.Get("/api/features", &features)
		for _, f := range features.Items {
			if f.Built != (f.Name == "ipv6") {
				t.Errorf("%s is built: %t", f.Name, f.Built)
			}
		}
		for _, call := range []string{
			"GET /api/vms", "POST /api/vms", "GET /api/vms/x", "PATCH /api/vms/x", "DELETE /api/vms/x", "POST /api/vms/x/start",
			"POST /api/vms/x/stop", "POST /api/vms/x/shutdown", "GET /api/vms/x/history", "POST /api/vms/x/revert",
			"GET /api/vms/x/stats", "GET /api/vms/x/stats/history", "GET /api/stats",
			"GET /api/networks", "POST /api/networks", "GET /api/networks/x", "DELETE /api/networks/x", "GET /api/networks/x/history",
		} {
			method, path, _ := strings.Cut(call, " ")
			status, p := i.Problem(method, path, nil)
			if status != http.StatusNotImplemented || p.Code != problem.FeatureNotBuilt || !strings.Contains(p.Detail, "USE=qemu") {
				t.Errorf("%s: %d %+v", call, status, p)
			}
		}
		const notBuilt = 7 // the exit code
		if r := i.CLI("vm", "list"); r.Code != notBuilt || !strings.Contains(r.Err, "qemu") {
			t.Errorf("vm list: %d %s", r.Code, r.Err)
		}
		i.Must("POST", "/api/storage/pools/local/volumes", map[string]any{"name": "v", "size_gb": 1})
		if files := volumeFiles(t, i); len(files) != 1 {
			t.Errorf("files %q", files)
		}
	})
	t.Run("ipv6", func(t *testing.T) {
		i := newInstance(t, build(t, "no_qemu no_ipv6"), "--listen", "[::]:0")
		if r := i.CLI("serve", "--check-config"); !strings.Contains(r.Out, `"0.0.0.0:8006"`) {
			t.Errorf("listens on %s", r.Out)
		}
		i.Start()
		address := regexp.MustCompile(`listening on https://0\.0\.0\.0:(\d+)`).FindStringSubmatch(i.Log())
		if address == nil {
			t.Fatalf("listens on\n%s", i.Log())
		}
		for host, open := range map[string]bool{"127.0.0.1": true, "::1": false} {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, address[1]), time.Second)
			if (err == nil) != open {
				t.Errorf("%s: %v", host, err)
			}
			if err == nil {
				conn.Close()
			}
		}
	})
}
