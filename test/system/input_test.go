package system_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// TestBadInput sends what must not be taken. Each is a problem that names the field, in our own words, and leaves
// nothing: the name stays free, and neither the lists nor libvirt nor the pool know of it.
func TestBadInput(t *testing.T) {
	i := qemuInstance(t)
	i.Start()
	images := filepath.Join(i.Dir, "images")
	secret := filepath.Join(i.Dir, "secret") // where no request may look
	for _, err := range []error{
		os.WriteFile(secret, []byte("secret"), 0o644), os.Symlink(secret, filepath.Join(images, "link")),
		os.Symlink(i.Dir, filepath.Join(images, "up")), os.Mkdir(filepath.Join(images, "folder"), 0o755),
		os.WriteFile(filepath.Join(images, "text"), []byte("no kernel"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	i.Must("POST", "/api/vms", small("taken", nil))

	refuse := func(name, body string, code problem.Code, field string) {
		i.Run(t, name, func(t *testing.T) {
			status, p := i.Problem("POST", "/api/vms?wait=60", body)
			if status != code.Status() || p.Code != code || status >= 500 {
				t.Errorf("%d %+v, want %s", status, p, code)
			}
			if named := slices.ContainsFunc(p.Fields, func(f problem.Field) bool { return f.Field == field }); field != "" && !named {
				t.Errorf("it names %+v, not %s", p.Fields, field)
			}
			inOwnWords(t, i, p)
			nothingOf(t, i, "taken")
		})
	}
	with := func(fields string, args ...any) string { return `{"name":"bad",` + fmt.Sprintf(fields, args...) + `}` }

	malformed, invalid := problem.MalformedRequest, problem.InvalidValue
	refuse("unknown field", with(`"colour":"red"`), malformed, "colour")
	refuse("unknown field inside", with(`"disks":[{"size_gb":1,"colour":"red"}]`), malformed, "disks[0].colour")
	refuse("wrong case", with(`"Cpus":1`), malformed, "Cpus")
	refuse("duplicate key", with(`"cpus":1,"cpus":1`), malformed, "cpus")
	refuse("invalid UTF-8", with(`"description":"%s"`, "\xff\xfe"), malformed, "description")
	refuse("half a surrogate", with(`"description":"\ud800"`), malformed, "description")
	refuse("broken JSON", `{"name":"bad","cpus":`, malformed, "cpus")
	refuse("two values", `{"name":"bad"}{"name":"bad"}`, malformed, "")
	refuse("no value", "", malformed, "")
	refuse("bottomless", strings.Repeat(`{"boot":`, 100_000), malformed, "")
	refuse("10 MB", with(`"description":"%s"`, strings.Repeat("x", 10<<20)), problem.BodyTooLarge, "")

	refuse("wrong type", with(`"cpus":"two"`), invalid, "cpus")
	refuse("no object", `[]`, invalid, "body")
	refuse("no name", `{"cpus":1}`, invalid, "name")
	for _, name := range []string{
		"", "Bad", "-bad", "bad-", "b d", "bäd", "../bad", "bad\\n", "import", "unmanaged",
		strings.Repeat("b", 64), "0190e0a2-0000-7000-8000-000000000000",
	} {
		refuse("name "+name, `{"name":"`+name+`"}`, invalid, "name")
	}
	refuse("name taken", `{"name":"taken"}`, problem.NameTaken, "name")
	refuse("no CPU", with(`"cpus":0`), invalid, "cpus")
	refuse("4096 CPUs", with(`"cpus":4096`), invalid, "cpus")
	refuse("more CPUs than the host", with(`"cpus":4095`), invalid, "cpus")
	refuse("no memory", with(`"memory_mb":0`), invalid, "memory_mb")
	refuse("more memory than the host", with(`"memory_mb":16777216`), invalid, "memory_mb")
	refuse("more memory than there is", with(`"memory_mb":1e300`), invalid, "memory_mb")
	refuse("no such pool", with(`"disks":[{"size_gb":1},{"size_gb":1,"pool":"none"}]`), invalid, "disks[1].pool")
	refuse("no pool of that id", with(`"disks":[{"size_gb":1,"pool":"0190e0a2-0000-7000-8000-000000000000"}]`), invalid, "disks[0].pool")
	refuse("no such node", with(`"node":"elsewhere"`), invalid, "node")
	refuse("a disk of nothing", with(`"disks":[{"size_gb":0}]`), invalid, "disks[0].size_gb")
	refuse("a machine that is none", with(`"machine":"none"`), invalid, "machine")
	refuse("an initrd without a kernel", with(`"boot":{"initrd":"%s/text"}`, images), invalid, "boot.initrd")
	refuse("a command line without a kernel", with(`"boot":{"cmdline":"quiet"}`), invalid, "boot.cmdline")
	refuse("two disks first", with(`"disks":[{"size_gb":1,"boot_order":1},{"size_gb":1,"boot_order":1}]`), invalid, "disks[1].boot_order")
	refuse("an unknown network", with(`"networks":[{"network":"nowhere"}]`), invalid, "networks[0].network")
	refuse("two NICs alike", with(`"networks":[{"mac":"02:00:00:00:00:01"},{"mac":"02:00:00:00:00:01"}]`), invalid, "networks[1].mac")
	for name, path := range map[string]string{
		"outside": secret, "traversal": images + "/../secret", "traversal to nowhere": images + "/../../../../none", "link": images + "/link",
		"link to a folder": images + "/up/secret", "folder": images + "/folder", "relative": "vmlinuz", "missing": images + "/none",
		"the dir": images, "beside": images + "x/y", "not a file": "/dev/null", "NUL": images + `/text\u0000`,
	} {
		for _, field := range []string{"kernel", "iso"} {
			refuse(field+" "+name, with(`"boot":{"%s":"%s"}`, field, path), invalid, "boot."+field)
		}
		refuse("initrd "+name, with(`"boot":{"kernel":"%s/text","initrd":"%s"}`, images, path), invalid, "boot.initrd")
		refuse("image "+name, with(`"disks":[{"size_gb":1,"image":"%s"}]`, path), invalid, "disks[0].image")
	}

	i.Run(t, "of a backend that is not built", func(t *testing.T) {
		if status, p := i.Problem("POST", "/api/vms", with(`"backend":"lxd"`)); status != http.StatusNotImplemented || p.Code != problem.FeatureNotBuilt {
			t.Errorf("%d %+v", status, p)
		}
		nothingOf(t, i, "taken")
	})
	i.Run(t, "taken back: a disk larger than all, which only the pool can tell", func(t *testing.T) {
		op := i.Operation("POST", "/api/vms", with(`"disks":[{"size_gb":1},{"size_gb":65536,"format":"raw"}]`))
		if op.State != operation.StateFailed || op.Error == nil || op.Error.Code.Status() >= 500 {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
		inOwnWords(t, i, op.Error.Problem)
		nothingOf(t, i, "taken")
	})
	i.Run(t, "the name is free", func(t *testing.T) {
		var pools openapi.PoolList
		i.Get("/api/storage/pools", &pools)
		i.Must("POST", "/api/vms", with(`"memory_mb":32,"networks":[],"disks":[{"size_gb":1,"pool":"%s"}]`, pools.Items[0].ID))
		if files := volumeFiles(t, i); len(files) != 1 {
			t.Errorf("files %q", files)
		}
	})
	i.Run(t, "a description that XML cannot hold", func(t *testing.T) { describe(t, i) })
}

// inOwnWords fails where a problem quotes a driver, an error of Go or a path that the request did not name.
func inOwnWords(t *testing.T, i *instance.Instance, p problem.Problem) {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{
		"libvirt", "virt-", "qemu", "XML", "json:", "jsontext", "schema", "SQL", "postgres", "nats", "goroutine", ".go:", "lstat", "open /",
		"no such file or directory", "permission denied", i.Dir,
	} {
		if strings.Contains(string(text), foreign) {
			t.Errorf("it says %q: %s", foreign, text)
		}
	}
}

// nothingOf fails where there is anything but one machine, without disks, of a name.
func nothingOf(t *testing.T, i *instance.Instance, but string) {
	t.Helper()
	var list openapi.VMList
	i.Get("/api/vms", &list)
	if len(list.Items) != 1 || list.Items[0].Name != but {
		t.Errorf("listed: %+v", list.Items)
	}
	var volumes openapi.VolumeList
	i.Get("/api/storage/pools/local/volumes", &volumes)
	if files := volumeFiles(t, i); len(volumes.Items) != 0 || len(files) != 0 {
		t.Errorf("volumes %+v, files %q", volumes.Items, files)
	}
	if known := virsh(t, i, "list", "--all", "--name"); known != but {
		t.Errorf("libvirt knows %q", known)
	}
	settled(t, i)
}

// describe gives a machine texts that are valid JSON and not valid XML. libvirtd must be able to read again what it
// has written, or the machine is lost.
func describe(t *testing.T, i *instance.Instance) {
	const text = "a\u0001\u001b\ufffe\uffff]]>&<b>"
	i.Must("POST", "/api/vms", small("created", map[string]any{"description": text}))
	i.Must("PATCH", "/api/vms/taken", map[string]any{"description": text})
	killLibvirt(t, i)
	instance.Eventually(t, 30*time.Second, "libvirtd answers again", func() bool { _, err := tryVirsh(i, "uri"); return err == nil })
	known := strings.Fields(virsh(t, i, "list", "--all", "--name"))
	for _, name := range []string{"created", "taken"} {
		var v openapi.VM
		i.Get("/api/vms/"+name, &v)
		if !slices.Contains(known, name) || v.Description != text {
			t.Errorf("%s is described as %q; libvirt knows %q", name, v.Description, known)
		}
	}
}
