package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

func TestVM(t *testing.T) {
	w := newWorld(t)
	kernel := w.images + "/sub/../vmlinuz"
	w.post("/api/vms?wait=10", `{"name":"web-1","boot":{"kernel":"`+kernel+`"},"disks":[{"size_gb":1}],"tags":["web"],"start":true}`).is(200)
	t.Run("DefaultsAreFilledIn", func(t *testing.T) {
		v := into[vm.View](w.get("/api/vms/web-1").is(200))
		if v.Backend != "qemu" || v.CPUs != 1 || v.MemoryMB != 512 || v.CPUModel != "host-model" || v.Machine != "q35" || v.Firmware != "bios" ||
			v.OnDrift != "record" || v.State != vm.StateRunning || *v.Boot.Kernel != w.images+"/vmlinuz" ||
			!v.Serial || !v.RNG || v.Agent || v.TPM || v.SecureBoot || v.VNC != (vm.VNC{Enabled: true}) ||
			!slices.Equal(v.Networks, []vm.NIC{{Network: "default", Model: "virtio", Link: "up"}}) ||
			len(v.Disks) != 1 || v.Disks[0] != (vm.Disk{Pool: "local", SizeGB: 1, Format: "qcow2", Bus: "virtio", Cache: "default", Discard: "unmap"}) {
			t.Errorf("%+v", v)
		}
	})
	t.Run("NoNetwork", func(t *testing.T) {
		w.post("/api/vms?wait=10", `{"name":"lonely","networks":[],"node":"here"}`).is(200)
		if v := into[vm.View](w.get("/api/vms/lonely").is(200)); v.Networks == nil || len(v.Networks) != 0 {
			t.Errorf("%+v", v.Networks)
		}
	})
	t.Run("Verbs", func(t *testing.T) {
		w.post("/api/vms/web-1/start", "").problem(problem.InvalidState)
		w.post("/api/vms/web-1/stop?wait=10", "").is(200)
		w.post("/api/vms/web-1/start?wait=10", "").is(200)
		w.post("/api/vms/web-1/shutdown?wait=10", `{"timeout_s":5}`).is(200)
		w.post("/api/vms/web-1/stop?force=false&wait=10", "").is(200)
		var stops []vm.StopData
		for _, c := range w.service.asked {
			if c.Type == "vm.stop" || c.Type == "vm.shutdown" {
				stops = append(stops, data[vm.StopData](t, c))
			}
		}
		if !slices.Equal(stops, []vm.StopData{{Force: true}, {TimeoutS: 5}, {TimeoutS: 120}}) {
			t.Errorf("%+v", stops)
		}
	})
	t.Run("UpdateAndRevert", func(t *testing.T) {
		before := w.get("/api/vms/web-1").is(200)
		position := into[openapi.History](w.get("/api/vms/web-1/history").is(200)).Position
		w.call("PATCH", "/api/vms/web-1?wait=10", `{"tags":[],"autostart":true}`, header{"If-Match": before.Header.Get("ETag")}).is(200)
		if v := into[vm.View](w.get("/api/vms/web-1").is(200)); len(v.Tags) != 0 || !v.Autostart {
			t.Errorf("%+v", v)
		}
		w.post("/api/vms/web-1/revert?wait=10", `{"to":"`+position+`"}`).is(200)
		if v := into[vm.View](w.get("/api/vms/web-1").is(200)); !slices.Equal(v.Tags, []string{"web"}) || v.Autostart {
			t.Errorf("%+v", v)
		}
	})
	t.Run("List", func(t *testing.T) {
		for query, want := range map[string]int{
			"tag=web": 1, "state=stopped": 2, "cpus=1&backend=qemu": 2, "tag=db": 0, "autostart=false": 2, "q=LONE": 1,
			"node=here": 2, "node=" + w.service.node.String(): 2, "node=elsewhere": 0,
		} {
			if l := into[openapi.VMList](w.get("/api/vms?" + query).is(200)); len(l.Items) != want {
				t.Errorf("%s: %d", query, len(l.Items))
			}
		}
	})
	t.Run("Delete", func(t *testing.T) {
		w.call("DELETE", "/api/vms/web-1?force=true&keep_disks=true&wait=10", "").is(200)
		last := w.service.asked[len(w.service.asked)-1]
		if d := data[vm.DeleteData](t, last); d != (vm.DeleteData{Force: true, KeepDisks: true}) {
			t.Errorf("%+v", d)
		}
		w.get("/api/vms/web-1").problem(problem.NotFound)
	})
}

func TestStorage(t *testing.T) {
	w := newWorld(t)
	local, other := w.service.definePool("local"), w.service.definePool("tank/vms")
	created := w.post("/api/storage/pools/local/volumes?wait=10", `{"name":"v1","size_gb":2}`).is(200).operation()
	t.Run("PathOfTheOperation", func(t *testing.T) {
		if v := into[volume.View](w.get(created.Resource).is(200)); v.ID != created.ResourceID || v.Name != "v1" {
			t.Errorf("%s is %+v", created.Resource, v)
		}
		for _, path := range []string{
			created.Resource, created.ResourceID.String(), "/api/storage/pools/local/volumes/v1",
			"/api/storage/pools/" + local.String() + "/volumes/v1", "/api/storage/pools/local/volumes/" + created.ResourceID.String(),
		} {
			l := into[openapi.OperationList](w.get("/api/operations?resource=" + path).is(200))
			if len(l.Items) != 1 || l.Items[0].ID != created.ID {
				t.Errorf("%s: %+v", path, l.Items)
			}
		}
		for _, path := range []string{
			"/api/storage/pools/tank%252Fvms/volumes/v1", "/api/storage/pools/nobody/volumes/v1", "/api/storage/pools/local",
			"/api/storage/pools/%2525zz/volumes/v1", "/api/nothing/v1", "/api/%25zz", "/api//v1", "v1",
		} {
			if l := into[openapi.OperationList](w.get("/api/operations?resource=" + path).is(200)); len(l.Items) != 0 {
				t.Errorf("%s: %+v", path, l.Items)
			}
		}
	})
	if v := into[volume.View](w.get("/api/storage/pools/local/volumes/v1").is(200)); v.Pool != local || v.Format != "qcow2" || !v.Thin {
		t.Errorf("%+v", v)
	}
	t.Run("SlashInTheName", func(t *testing.T) {
		if p := into[pool.View](w.get("/api/storage/pools/tank%2Fvms").is(200)); p.ID != other {
			t.Errorf("%+v", p)
		}
		if l := into[openapi.VolumeList](w.get("/api/storage/pools/tank%2Fvms/volumes").is(200)); len(l.Items) != 0 {
			t.Errorf("%+v", l)
		}
		op := w.post("/api/storage/pools/tank%2Fvms/volumes?wait=10", `{"name":"v1","size_gb":2}`).is(200).operation() // names are the pool's
		l := into[openapi.OperationList](w.get("/api/operations?resource=" + url.QueryEscape("/api/storage/pools/tank%2Fvms/volumes/v1")).is(200))
		if len(l.Items) != 1 || l.Items[0].ID != op.ID {
			t.Errorf("%+v", l.Items)
		}
	})
	t.Run("VolumesOfAPool", func(t *testing.T) {
		l := into[openapi.VolumeList](w.get("/api/storage/pools/local/volumes").is(200))
		if len(l.Items) != 1 || l.Items[0].Pool != local {
			t.Errorf("%+v", l)
		}
		w.get("/api/storage/pools/" + other.String() + "/volumes/" + l.Items[0].ID.String()).problem(problem.NotFound)
		w.get("/api/storage/pools/nobody/volumes").problem(problem.NotFound)
		if h := into[openapi.History](w.get("/api/storage/pools/local/volumes/v1/history").is(200)); len(h.Items) != 2 {
			t.Errorf("%+v", h)
		}
	})
	t.Run("Delete", func(t *testing.T) {
		w.get("/api/storage/pools/local/volumes/v1").is(200)
		op := w.call("DELETE", "/api/storage/pools/local/volumes/v1?wait=10", "").is(200).operation()
		if want := "/api/storage/pools/" + local.String() + "/volumes/" + op.ResourceID.String(); op.Resource != want {
			t.Errorf("the operation is of %s, want %s", op.Resource, want)
		}
		w.get("/api/storage/pools/local/volumes/v1").problem(problem.NotFound)
	})
	if l := into[openapi.PoolList](w.get("/api/storage/pools?sort=-name").is(200)); len(l.Items) != 2 || l.Items[0].Name != "tank/vms" {
		t.Errorf("%+v", l)
	}
	w.get("/api/storage/pools/local/history").is(200)
}

func TestOperations(t *testing.T) {
	w := newWorld(t)
	op := w.post("/api/vms?wait=10", `{"name":"a"}`).is(200).operation()
	refused := w.post("/api/vms?wait=10", `{"name":"a"}`).problem(problem.NameTaken)
	w.caughtUp()
	t.Run("KeepsTheProblem", func(t *testing.T) {
		path := "/api/operations/" + refused.Operation.String()
		want := problem.New(problem.NameTaken, "%s", refused.Detail).Document()
		if want.Type != refused.Type || want.Title != refused.Title || want.Status != refused.Status {
			t.Fatalf("answered %+v", refused)
		}
		failed := into[map[string]any](w.get(path).is(200))
		log := into[openapi.OperationLog](w.get(path + "/log").is(200)).Items
		for name, got := range map[string]any{"operation": failed["error"], "log": log[len(log)-1].Error} {
			if !sameJSON(t, got, want) {
				t.Errorf("the %s has %v, want %+v", name, got, want)
			}
		}
		if recorded := w.recorded("operation.failed"); !sameJSON(t, recorded, map[string]any{"problem": want.Problem}) {
			t.Errorf("recorded as %s", recorded)
		}
	})
	for query, want := range map[string]int{
		"":                                    2,
		"?state=failed":                       1,
		"?type=vm.create&state=queued":        0,
		"?actor=token:admin":                  2,
		"?resource=" + op.Resource:            1,
		"?resource=" + op.ResourceID.String(): 1,
		"?resource=/api/vms/a":                1,
		"?resource=/api/vms/b":                0,
		"?sort=created_at&limit=1":            1,
	} {
		if l := into[openapi.OperationList](w.get("/api/operations" + query).is(200)); len(l.Items) != want {
			t.Errorf("%q: %d operations, want %d", query, len(l.Items), want)
		}
	}
	path := "/api/operations/" + op.ID.String()
	if got := w.get(path + "?wait=10").is(200).operation(); got.ID != op.ID || got.State != operation.StateSucceeded {
		t.Errorf("%+v", got)
	}
	if got := w.get(path + "?at=" + into[openapi.History](w.get(path + "/history").is(200)).Items[0].Position).is(200).operation(); got.State != operation.StateQueued {
		t.Errorf("%+v", got)
	}
	if l := into[openapi.OperationLog](w.get(path + "/log").is(200)); len(l.Items) != 3 || l.Items[2].Type != "operation.succeeded" {
		t.Errorf("%+v", l)
	}
	l := into[openapi.OperationLog](w.get(path + "/log?limit=2").is(200))
	if len(l.Items) != 2 || l.Next == nil {
		t.Fatalf("%+v", l)
	}
	if l = into[openapi.OperationLog](w.get(path + "/log?limit=2&cursor=" + *l.Next).is(200)); len(l.Items) != 1 || l.Next != nil {
		t.Errorf("%+v", l)
	}
	w.post(path+"/cancel", "").problem(problem.InvalidState)
	t.Run("WaitEndsWithTheOperation", func(t *testing.T) {
		w.service.set(func(s *service) { s.hold = true })
		held := w.post("/api/vms", `{"name":"b"}`).is(202).operation()
		if got := w.get("/api/operations/" + held.ID.String() + "?wait=1").is(200).operation(); got.State != operation.StateRunning {
			t.Errorf("%+v", got)
		}
		done := make(chan *response, 1)
		go func() { done <- w.get("/api/operations/" + held.ID.String() + "?wait=60") }()
		w.service.finish(held.ID)
		if got := (<-done).is(200).operation(); got.State != operation.StateSucceeded {
			t.Errorf("%+v", got)
		}
	})
}

// sameJSON says whether two values are the same to a reader of their JSON.
func sameJSON(t *testing.T, a, b any) bool {
	t.Helper()
	var values [2]any
	for i, v := range []any{a, b} {
		text, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(text, &values[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// recorded is the data of the last event of a type.
func (w *world) recorded(kind string) json.RawMessage {
	w.t.Helper()
	page, err := w.store.Read(w.t.Context(), events.Position{}, eventstore.ReadOptions{Types: []string{kind}, Limit: 1000})
	if err != nil || len(page.Events) == 0 {
		w.t.Fatalf("no %s was recorded (%v)", kind, err)
	}
	return page.Events[len(page.Events)-1].Data
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	op := w.post("/api/vms?wait=10", `{"name":"a"}`).is(200).operation()
	all := into[openapi.EventList](w.get("/api/events").is(200))
	if len(all.Items) != 5 || all.Next != nil || all.Position == "" {
		t.Fatalf("%+v", all)
	}
	if l := into[openapi.EventList](w.get("/api/events?type=vm.*&type=operation.succeeded").is(200)); len(l.Items) != 3 {
		t.Errorf("%+v", l)
	}
	if l := into[openapi.EventList](w.get("/api/events?stream=operation/" + op.ID.String()).is(200)); len(l.Items) != 3 {
		t.Errorf("%+v", l)
	}
	var paged []string
	for after := ""; ; {
		l := into[openapi.EventList](w.get("/api/events?limit=2&after=" + after).is(200))
		for _, e := range l.Items {
			paged = append(paged, e.Position.String())
		}
		if l.Next == nil {
			break
		}
		after = *l.Next
	}
	for i, e := range all.Items {
		if i >= len(paged) || paged[i] != e.Position.String() {
			t.Fatalf("pages hold %v", paged)
		}
	}
	w.get("/api/events?after=" + events.Position{Era: 9, Tx: 1, Seq: 1}.String()).problem(problem.PositionGone)
	w.get("/api/events?after=AA").problem(problem.InvalidValue, "query.after")
	w.get("/api/events?type=drop").problem(problem.InvalidValue, "query.type[0]")
}

// stream is an open event stream.
type stream struct {
	t    *testing.T
	body *bufio.Reader
	stop func()
}

func (w *world) follow(path string, headers ...header) *stream {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", w.http.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin")
	req.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		for name, value := range h {
			req.Header.Set(name, value)
		}
	}
	resp, err := w.http.Client().Do(req) //nolint:bodyclose // stop closes it
	if err != nil {
		w.t.Fatal(err)
	}
	s := &stream{t: w.t, body: bufio.NewReader(resp.Body), stop: func() { cancel(); resp.Body.Close() }}
	w.t.Cleanup(s.stop)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("%d %s", resp.StatusCode, resp.Header)
	}
	return s
}

// next returns id and type of the next message.
func (s *stream) next() (id, event string) {
	s.t.Helper()
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name {
		case "id":
			id = value
		case "event":
			event = value
		case "":
			if id != "" {
				return id, event
			}
		}
	}
}

func TestFollow(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Watchers = 2 })
	w.post("/api/vms?wait=10", `{"name":"a"}`).is(200)
	all := into[openapi.EventList](w.get("/api/events").is(200)).Items
	t.Run("ResumesWithoutLossOrRepeat", func(t *testing.T) {
		s := w.follow("/api/events")
		for i, e := range all {
			if id, kind := s.next(); id != e.Position.String() || kind != e.Type {
				t.Errorf("message %d: %s %s, want %s %s", i, id, kind, e.Position, e.Type)
			}
		}
		s.stop()
		w.post("/api/vms?wait=10", `{"name":"b"}`).is(200)
		s = w.follow("/api/events?after=AA", header{"Last-Event-ID": all[2].Position.String()})
		defer s.stop()
		if id, _ := s.next(); id != all[3].Position.String() {
			t.Errorf("resumed at %s, want %s", id, all[3].Position)
		}
	})
	t.Run("Live", func(t *testing.T) {
		w.unwatched()
		s := w.follow("/api/events?type=vm.started")
		defer s.stop()
		w.post("/api/vms/a/start?wait=10", "").is(200)
		if _, kind := s.next(); kind != "vm.started" {
			t.Errorf("%s", kind)
		}
	})
	t.Run("SlowWatcherHoldsUpNobody", func(t *testing.T) {
		w.unwatched()
		slow := w.follow("/api/events") // and never reads
		defer slow.stop()
		quick := w.follow("/api/events?type=vm.updated")
		defer quick.stop()
		text := strings.Repeat("x", 4096)
		for i := range 40 {
			w.call("PATCH", "/api/vms/a", `{"description":"`+text+`"}`).is(202)
			if _, kind := quick.next(); kind != "vm.updated" {
				t.Fatalf("event %d: %s", i, kind)
			}
		}
	})
	t.Run("TooMany", func(t *testing.T) {
		w.unwatched()
		one, two := w.follow("/api/events"), w.follow("/api/events")
		w.call("GET", "/api/events", "", header{"Accept": "text/event-stream"}).problem(problem.TooManyRequests)
		one.stop()
		two.stop()
		w.unwatched()
	})
	t.Run("PositionGone", func(t *testing.T) {
		w.call("GET", "/api/events?after="+events.Position{Era: 9, Tx: 1, Seq: 1}.String(), "", header{"Accept": "text/event-stream"}).
			problem(problem.PositionGone)
	})
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	w.service.set(func(s *service) { s.hold = true })
	s := w.follow("/api/events")
	waiting := make(chan *response, 1)
	go func() { waiting <- w.post("/api/vms?wait=300", `{"name":"a"}`) }()
	if _, kind := s.next(); kind != "operation.requested" {
		t.Fatalf("%s", kind)
	}
	for kind := ""; kind != "operation.started"; {
		_, kind = s.next()
	}
	w.server.Drain()
	if op := (<-waiting).is(200).operation(); op.State.Ended() {
		t.Errorf("%+v", op)
	}
	if _, err := s.body.ReadString(0); err == nil || err.Error() != "EOF" {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestSystem(t *testing.T) {
	broken := problem.New(problem.HypervisorUnavailable, "libvirtd does not answer")
	w := newWorld(t, func(o *Options) {
		o.Ready = map[string]Check{
			"database": func(context.Context) error { return nil },
			"libvirt":  func(context.Context) error { return broken },
			"secret":   func(context.Context) error { return &url.Error{Op: "get", URL: "secret", Err: context.Canceled} },
		}
	})
	w.get("/healthz").is(200)
	ready := into[openapi.Readiness](w.get("/readyz").is(503))
	details := map[string]string{}
	for _, d := range ready.Dependencies {
		details[d.Name] = d.Detail
	}
	if ready.Ready || details["libvirt"] != "libvirtd does not answer" || details["database"] != "" || strings.Contains(details["secret"], "get") {
		t.Errorf("%+v", ready)
	}
	if v := into[openapi.Version](w.get("/api/version").is(200)); v.Version != "1" {
		t.Errorf("%+v", v)
	}
	if f := into[openapi.FeatureList](w.get("/api/features").is(200)); len(f.Items) != 1 {
		t.Errorf("%+v", f)
	}
	if d := into[map[string]any](w.get("/api/openapi.json").is(200)); d["openapi"] != "3.1.1" {
		t.Errorf("%v", d["openapi"])
	}
	if r := w.get("/api/docs").is(200); !strings.Contains(string(r.Body), "Create a virtual machine") || strings.Contains(string(r.Body), "<script") {
		t.Errorf("%.500s", r.Body)
	}
	if r := w.get("/metrics").is(200); !strings.Contains(string(r.Body), `horcrux_http_requests_total{operation="getVersion",status="200"} 1`) {
		t.Errorf("%s", r.Body)
	}
}

func TestFeaturesThatAreNotBuilt(t *testing.T) {
	w := newWorld(t)
	w.call("POST", "/api/vms", `{"name":"a","backend":"lxd"}`).problem(problem.FeatureNotBuilt)
	w = newWorld(t, func(o *Options) { o.Features = []openapi.Feature{{Name: "qemu"}} })
	w.call("POST", "/api/vms", `{"name":"a"}`).problem(problem.FeatureNotBuilt)
	w.get("/api/vms/a/history").problem(problem.FeatureNotBuilt)
	w.get("/api/storage/pools").is(200)
}
