package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/events"
	"horcrux/pkg/events/network"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/openapi"
	"horcrux/pkg/openapi/openapitest"
	"horcrux/pkg/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake answers calls in the order in which they are expected. Requests and answers that are not as the document says
// fail the test, so that it cannot drift from the real server.
type fake struct {
	t        *testing.T
	contract *openapitest.Contract
	mu       sync.Mutex
	script   []exchange
	asked    []string // "POST /api/vms?wait=60 {…}"
}

type exchange struct {
	call   string // "GET /api/vms"
	status int
	media  string
	body   string
}

func answer(call string, status int, v any) exchange {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return exchange{call, status, "application/json", string(body)}
}

func refuse(call string, p *problem.Problem) exchange {
	wire := openapi.Problem{
		Type: "urn:horcrux:problem:" + string(p.Code), Title: p.Code.Title(), Status: p.Code.Status(), Code: p.Code, Detail: p.Detail, Fields: p.Fields,
	}
	if id, err := uuid.Parse(p.Operation); err == nil {
		wire.Operation = &id
	}
	e := answer(call, p.Code.Status(), wire)
	e.media = "application/problem+json"
	return e
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := f.contract.CheckRequest(r); err != nil {
		f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	f.asked = append(f.asked, strings.TrimSpace(strings.TrimSuffix(r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.Query().Encode(), "?")+" "+string(body)))
	call := r.Method + " " + r.URL.EscapedPath()
	if len(f.script) == 0 || f.script[0].call != call {
		f.t.Errorf("unexpected %s", call)
		panic(http.ErrAbortHandler)
	}
	e := f.script[0]
	f.script = f.script[1:]
	w.Header().Set("Content-Type", e.media)
	w.Header().Set("Horcrux-Position", "AAEB")
	if r.Method != http.MethodGet {
		w.Header().Set("Location", "/api/operations/"+opID.String())
	}
	w.WriteHeader(e.status)
	if _, err := io.WriteString(w, e.body); err != nil {
		f.t.Error(err)
	}
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
	asked    []string
}

// horcrux runs a command line against a fake with a script.
func horcrux(t *testing.T, script []exchange, args ...string) result {
	t.Helper()
	f := &fake{t: t, contract: openapitest.Load(t), script: script}
	server := httptest.NewServer(f)
	defer server.Close()
	a := &app{
		build:  Build{Version: "1.2.3", Commit: "abc", Features: []openapi.Feature{{Name: "qemu", Built: true}, {Name: "docker"}}},
		getenv: func(k string) string { return map[string]string{"HORCRUX_URL": server.URL, "HORCRUX_TOKEN": "hx_1"}[k] },
		wrap:   func(next http.RoundTripper) http.RoundTripper { return openapitest.Transport(t, next) },
	}
	var out, errs bytes.Buffer
	root := a.root()
	root.SetOut(&out)
	root.SetErr(&errs)
	code := Run(t.Context(), root, args)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.script) > 0 {
		t.Errorf("never asked for %s", f.script[0].call)
	}
	return result{code, out.String(), errs.String(), f.asked}
}

var (
	opID   = uuid.MustParse("0190e0a2-0000-7000-8000-00000000000a")
	vmID   = uuid.MustParse("0190e0a2-0000-7000-8000-00000000000b")
	nodeID = uuid.MustParse("0190e0a2-0000-7000-8000-00000000000c")
	noon   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
)

func ref[T any](v T) *T { return &v }

func aVM(name string, state vm.State) vm.View {
	return vm.View{
		Common:  events.Common{ID: vmID, Name: name, Version: 3, CreatedAt: noon, UpdatedAt: noon},
		Backend: "qemu", Node: nodeID, Description: "front", Tags: []string{"web", "prod"}, CPUs: 2, MaxCPUs: 4, MemoryMB: 1024,
		CPUModel: "host-model", Machine: "q35", Firmware: "bios", Serial: true, RNG: true,
		Disks: []vm.Disk{
			{Name: "disk0", Pool: "local", SizeGB: 10, Format: "qcow2", Bus: "virtio", BootOrder: ref(1), Cache: "default", Discard: "unmap"},
			{Name: "disk1", Pool: "local", SizeGB: 5, Format: "raw", Bus: "scsi", Cache: "default", Discard: "unmap"},
		},
		Networks: []vm.NIC{{Name: "nic0", Network: "default", Model: "virtio", Link: "up"}}, OnDrift: "record", Accelerator: ref("tcg"),
		Pending: vm.Fields{}, Snapshots: []vm.Snapshot{}, State: state, NativeID: ref(vmID.String()), ObservedAt: &noon,
	}
}

func anOperation(kind string, state operation.State, failure *problem.Problem) operation.View {
	return operation.View{
		ID: opID, Type: kind, State: state, Actor: "uid:0", Resource: "/api/vms/" + vmID.String(), ResourceID: vmID, Steps: []operation.Step{},
		Error: failure.Document(), Position: "AAEB", CreatedAt: noon, Version: 2,
	}
}

func aNetwork() network.View {
	v4 := netip.MustParsePrefix("192.168.130.1/24")
	return network.View{
		Common: events.Common{ID: vmID, Name: "lan", Version: 2, CreatedAt: noon, UpdatedAt: noon},
		Mode:   "nat", Bridge: "virbr-3de1a5f4", IPv4: &v4, DHCP: true, Node: nodeID, State: network.StateActive,
	}
}

func aPool() pool.View {
	return pool.View{
		Common: events.Common{ID: nodeID, Name: "tank/vms", Version: 1, CreatedAt: noon, UpdatedAt: noon},
		Type:   "dir", Path: "/srv/vms", Options: map[string]string{}, Node: nodeID, State: "active",
	}
}

func aVolume() volume.View {
	return volume.View{
		Common: events.Common{ID: vmID, Name: "data", Version: 2, CreatedAt: noon, UpdatedAt: noon},
		Pool:   nodeID, Node: nodeID, SizeGB: 7, Format: "raw", Path: ref("/srv/vms/data"), Owner: "", State: "available",
	}
}

type page[T any] struct {
	Items    []T     `json:"items"`
	Next     *string `json:"next"`
	Position string  `json:"position"`
}

func onePage[T any](items ...T) page[T] {
	return page[T]{Items: append([]T{}, items...), Position: "AAEB"}
}

func anEvent(version int64) events.Event {
	return events.Event{
		ID: opID, Stream: events.NewStream("vm", vmID), Version: version, Type: "vm.started", Schema: 1, Data: json.RawMessage(`{}`),
		Meta: events.Meta{Actor: "uid:0"}, At: noon, Position: events.Position{Tx: 7, Seq: version},
	}
}
