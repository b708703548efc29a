package vm_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

var (
	node      = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	op        = uuid.MustParse("01900000-0000-7000-8000-000000000004")
	at        = time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC)
	noMemory  = problem.New(problem.InsufficientResources, "no memory")
	changeAll = vm.Fields{"description": raw(`"front"`), "tags": raw(`["web","prod"]`), "autostart": raw(`true`)}
	secret    = uuid.MustParse("01900000-0000-7000-8000-000000000007")
)

func raw(text string) json.RawMessage { return json.RawMessage(text) }

func intent(kind string) events.Intent {
	return events.Intent{
		Type: kind, Command: uuid.MustParse("01900000-0000-5000-8000-000000000003"), Operation: op, Step: "domain",
		ReplyTo: &events.Address{Domain: "compute", Node: node.String()}, Deadline: at,
	}
}

var spec = vm.Spec{
	Name: "web-1", Backend: "qemu", Description: "front end", Tags: []string{"web"}, CPUs: 2, MaxCPUs: 4, MemoryMB: 512,
	CPUModel: "host", Machine: "q35", Firmware: "uefi", SecureBoot: true, TPM: true,
	Disks: []vm.Disk{
		{
			Name: "disk0", Pool: "local", SizeGB: 10, Format: "qcow2", Image: new("/images/debian.qcow2"), Bus: "virtio", BootOrder: new(1),
			Cache: "none", Discard: "ignore", Limits: vm.IOLimits{ReadIOPS: 1, WriteIOPS: 2, ReadMB: 3, WriteMB: 4},
			PoolID:   uuid.MustParse("01900000-0000-7000-8000-000000000002"),
			VolumeID: uuid.MustParse("01900000-0000-5000-8000-000000000006"), VolumeName: "web-1-disk0",
		},
		{Name: "disk1", Pool: "local", SizeGB: 1, Format: "raw", Bus: "scsi", Cache: "default", Discard: "unmap"},
	},
	Networks: []vm.NIC{
		{Name: "nic0", Network: "default", Model: "virtio", MAC: new("52:54:00:00:00:01"), MTU: new(9000), Link: "down", BootOrder: new(2)},
		{Name: "nic1", Network: "lan", Model: "e1000", Link: "up"},
	},
	Boot:   vm.Boot{Kernel: new("/boot/vmlinuz"), Initrd: new("/boot/initrd"), Cmdline: new("console=ttyS0"), ISO: new("/iso/debian.iso")},
	Serial: true, VNC: vm.VNC{Enabled: true, Password: &secret}, Agent: true, RNG: true, Autostart: true, OnDrift: "record",
}

// before is spec as the first schema had it: what that did not have is as machines were then.
func before() vm.Spec {
	s := spec
	s.MaxCPUs, s.SecureBoot, s.TPM, s.VNC, s.Agent = 2, false, false, vm.VNC{}, false
	s.Disks, s.Networks = slices.Clone(s.Disks), slices.Clone(s.Networks)
	s.Disks[0].Cache, s.Disks[0].Discard, s.Disks[0].Limits = "default", "unmap", vm.IOLimits{}
	s.Networks[0].MTU, s.Networks[0].Link, s.Networks[0].BootOrder = nil, "up", nil
	return s
}

const (
	disksJSON    = `[{"name":"disk0","pool":"local","size_gb":10,"format":"qcow2","image":"/images/debian.qcow2","bus":"virtio","boot_order":1,"cache":"none","discard":"ignore","limits":{"read_iops":1,"write_iops":2,"read_mb_s":3,"write_mb_s":4},"pool_id":"01900000-0000-7000-8000-000000000002","volume_id":"01900000-0000-5000-8000-000000000006","volume":"web-1-disk0"},{"name":"disk1","pool":"local","size_gb":1,"format":"raw","image":null,"bus":"scsi","boot_order":null,"cache":"default","discard":"unmap","limits":{"read_iops":0,"write_iops":0,"read_mb_s":0,"write_mb_s":0}}]`
	networksJSON = `[{"name":"nic0","network":"default","model":"virtio","mac":"52:54:00:00:00:01","mtu":9000,"link":"down","boot_order":2},{"name":"nic1","network":"lan","model":"e1000","mac":null,"mtu":null,"link":"up","boot_order":null}]`
	bootJSON     = `{"kernel":"/boot/vmlinuz","initrd":"/boot/initrd","cmdline":"console=ttyS0","iso":"/iso/debian.iso"}`
	hardwareJSON = `"cpus":2,"max_cpus":4,"memory_mb":512,"cpu_model":"host","machine":"q35","firmware":"uefi","secure_boot":true,"tpm":true,"disks":` + disksJSON + `,"networks":` + networksJSON + `,"boot":` + bootJSON + `,"serial":true,"vnc":{"enabled":true,"password_ref":"01900000-0000-7000-8000-000000000007"},"agent":true,"rng":true`
	specJSON     = `{"name":"web-1","backend":"qemu","description":"front end","tags":["web"],` + hardwareJSON + `,"autostart":true,"on_drift":"record"}`
	specJSON1    = `{"name":"web-1","backend":"qemu","description":"front end","tags":["web"],"cpus":2,"memory_mb":512,"cpu_model":"host","machine":"q35","firmware":"uefi","disks":[{"pool":"local","size_gb":10,"format":"qcow2","image":"/images/debian.qcow2","bus":"virtio","boot_order":1,"pool_id":"01900000-0000-7000-8000-000000000002","volume_id":"01900000-0000-5000-8000-000000000006","volume":"web-1-disk0"},{"pool":"local","size_gb":1,"format":"raw","image":null,"bus":"scsi","boot_order":null}],"networks":[{"network":"default","model":"virtio","mac":"52:54:00:00:00:01"},{"network":"lan","model":"e1000","mac":null}],"boot":` + bootJSON + `,"autostart":true,"on_drift":"record"}`
	intentJSON   = `"command":"01900000-0000-5000-8000-000000000003","operation":"01900000-0000-7000-8000-000000000004","step":"domain","reply_to":{"domain":"compute","node":"01900000-0000-7000-8000-000000000001"},"deadline":"2026-11-22T10:00:00.123456Z"`
	problemJSON  = `{"problem":{"code":"insufficient_resources","detail":"no memory"}}`
	failedJSON   = `{"problem":{"code":"insufficient_resources","detail":"no memory"},"state":"stopped"}`
	updateJSON1  = `"description":"front","tags":["web","prod"],"autostart":true`
	updateJSON   = `"changed":{"autostart":true,"description":"front","tags":["web","prod"]},"pending":{"cpus":4},"sources":{"disk1":{"type":"file","path":"/p/1.raw","format":"raw"}}`
)

// adopted is spec as of a machine that others made.
func adopted() vm.Spec {
	s := spec
	s.Adopted = true
	return s
}

var change = vm.Change{Changed: changeAll, Pending: vm.Fields{"cpus": raw(`4`)}, Sources: map[string]vm.Source{"disk1": {Type: "file", Path: "/p/1.raw", Format: "raw"}}}

var (
	taken    = vm.Taken{Name: "b", Parent: new("a"), Description: "before", Memory: true, State: vm.StateRunning}
	restored = vm.Restored{Name: "b", State: vm.StateRunning, Change: vm.Change{Changed: changeAll, Pending: vm.Fields{"cpus": raw(`4`)}}}
)

const (
	takenJSON    = `"name":"b","parent":"a","description":"before","memory":true,"state":"running"`
	restoredJSON = `"name":"b","state":"running","changed":{"autostart":true,"description":"front","tags":["web","prod"]},"pending":{"cpus":4}`
)

func TestGolden(t *testing.T) {
	eventstest.Golden(t, vm.Codec, []eventstest.Case{
		{
			Type: "vm.create_requested", Schema: 2,
			Event: vm.CreateRequested{Spec: spec, Node: node, Operation: op},
			Data:  `{"spec":` + specJSON + `,"node":"01900000-0000-7000-8000-000000000001","operation":"01900000-0000-7000-8000-000000000004"}`,
		},
		{
			Type:  "vm.create_requested",
			Event: vm.CreateRequested{Spec: before(), Node: node, Operation: op},
			Data:  `{"spec":` + specJSON1 + `,"node":"01900000-0000-7000-8000-000000000001","operation":"01900000-0000-7000-8000-000000000004"}`,
		},
		{Type: "vm.create_failed", Event: vm.CreateFailed{Problem: noMemory}, Data: problemJSON},
		{
			Type: "vm.define_requested",
			Event: vm.DefineRequested{Intent: intent("vm.define"), Sources: []vm.Source{
				{Type: "file", Path: "/var/lib/horcrux/volumes/a.qcow2", Format: "qcow2"}, {Type: "block", Path: "/dev/vg/b", Format: "raw"},
			}},
			Data: `{"type":"vm.define",` + intentJSON + `,"sources":[{"type":"file","path":"/var/lib/horcrux/volumes/a.qcow2","format":"qcow2"},{"type":"block","path":"/dev/vg/b","format":"raw"}]}`,
		},
		{Type: "vm.created", Event: vm.Created{NativeID: "n-1", Accelerator: "tcg"}, Data: `{"native_id":"n-1","accelerator":"tcg"}`},
		{Type: "vm.define_failed", Event: vm.DefineFailed{Problem: noMemory}, Data: problemJSON},
		{Type: "vm.start_requested", Event: vm.StartRequested{Intent: intent("vm.start")}, Data: `{"type":"vm.start",` + intentJSON + `}`},
		{Type: "vm.started", Event: vm.Started{}, Data: `{}`},
		{Type: "vm.started", Event: vm.Started{Cause: "started behind our back"}, Data: `{"cause":"started behind our back"}`},
		{Type: "vm.start_failed", Event: vm.StartFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{
			Type:  "vm.stop_requested",
			Event: vm.StopRequested{Intent: events.Intent{Type: "vm.stop", Command: op, Deadline: at}, Force: true},
			Data:  `{"type":"vm.stop","command":"01900000-0000-7000-8000-000000000004","deadline":"2026-11-22T10:00:00.123456Z","force":true}`,
		},
		{Type: "vm.stop_requested", Event: vm.StopRequested{Intent: intent("vm.shutdown"), TimeoutS: 30}, Data: `{"type":"vm.shutdown",` + intentJSON + `,"force":false,"timeout_s":30}`},
		{Type: "vm.stopped", Event: vm.Stopped{}, Data: `{}`},
		{Type: "vm.stopped", Event: vm.Stopped{Cause: "crashed"}, Data: `{"cause":"crashed"}`},
		{Type: "vm.stop_failed", Event: vm.StopFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.pause_requested", Event: vm.PauseRequested{Intent: intent("vm.pause")}, Data: `{"type":"vm.pause",` + intentJSON + `}`},
		{Type: "vm.paused", Event: vm.Paused{Cause: "ioerror"}, Data: `{"cause":"ioerror"}`},
		{Type: "vm.pause_failed", Event: vm.PauseFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.resume_requested", Event: vm.ResumeRequested{Intent: intent("vm.resume")}, Data: `{"type":"vm.resume",` + intentJSON + `}`},
		{Type: "vm.resumed", Event: vm.Resumed{Cause: "resumed"}, Data: `{"cause":"resumed"}`},
		{Type: "vm.resume_failed", Event: vm.ResumeFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.reset_requested", Event: vm.ResetRequested{Intent: intent("vm.reset")}, Data: `{"type":"vm.reset",` + intentJSON + `}`},
		{Type: "vm.reset", Event: vm.Reset{}, Data: `{}`},
		{Type: "vm.reset_failed", Event: vm.ResetFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.lost", Event: vm.Lost{Cause: "undefined"}, Data: `{"cause":"undefined"}`},
		{Type: "vm.reboot_requested", Event: vm.RebootRequested{Intent: intent("vm.reboot")}, Data: `{"type":"vm.reboot",` + intentJSON + `}`},
		{Type: "vm.rebooted", Event: vm.Rebooted{}, Data: `{}`},
		{Type: "vm.reboot_failed", Event: vm.RebootFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.updated", Event: vm.Updated{Change: vm.Change{Changed: changeAll}}, Data: `{` + updateJSON1 + `}`},
		{Type: "vm.updated", Schema: 2, Event: vm.Updated{Change: change}, Data: `{` + updateJSON + `}`},
		{Type: "vm.updated", Schema: 2, Event: vm.Updated{}, Data: `{}`},
		{Type: "vm.update_requested", Event: vm.UpdateRequested{Intent: intent("vm.update"), Change: vm.Change{Changed: changeAll}}, Data: `{"type":"vm.update",` + intentJSON + `,` + updateJSON1 + `}`},
		{Type: "vm.update_requested", Schema: 2, Event: vm.UpdateRequested{Intent: intent("vm.update"), Change: change}, Data: `{"type":"vm.update",` + intentJSON + `,` + updateJSON + `}`},
		{Type: "vm.disk_change_requested", Event: vm.DiskChangeRequested{Operation: op, Attach: &spec.Disks[1], Running: true}, Data: `{"operation":"01900000-0000-7000-8000-000000000004","attach":{"name":"disk1","pool":"local","size_gb":1,"format":"raw","image":null,"bus":"scsi","boot_order":null,"cache":"default","discard":"unmap","limits":{"read_iops":0,"write_iops":0,"read_mb_s":0,"write_mb_s":0}},"running":true}`},
		{Type: "vm.disk_change_requested", Event: vm.DiskChangeRequested{Operation: op, Detach: "disk1", Keep: true}, Data: `{"operation":"01900000-0000-7000-8000-000000000004","detach":"disk1","keep":true}`},
		{Type: "vm.disk_change_requested", Event: vm.DiskChangeRequested{Operation: op, Resize: "disk1", SizeGB: 3}, Data: `{"operation":"01900000-0000-7000-8000-000000000004","resize":"disk1","size_gb":3}`},
		{Type: "vm.drifted", Event: vm.Drifted{Cause: "defined", Change: change}, Data: `{"cause":"defined",` + updateJSON + `}`},
		{Type: "vm.repair_requested", Event: vm.RepairRequested{Intent: intent("vm.repair"), Cause: "destroyed", State: vm.StateRunning, At: at}, Data: `{"type":"vm.repair",` + intentJSON + `,"cause":"destroyed","state":"running","at":"2026-11-22T10:00:00.123456Z"}`},
		{Type: "vm.repaired", Event: vm.Repaired{State: vm.StateRunning, Change: change}, Data: `{"state":"running",` + updateJSON + `}`},
		{Type: "vm.repair_failed", Event: vm.RepairFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.repair_given_up", Event: vm.RepairGivenUp{Problem: noMemory}, Data: problemJSON},
		{Type: "vm.import_requested", Event: vm.ImportRequested{Intent: intent("vm.import"), Spec: adopted(), Node: node, Sources: []vm.Source{}}, Data: `{"type":"vm.import",` + intentJSON + `,"spec":` + strings.TrimSuffix(specJSON, "}") + `,"adopted":true},"node":"01900000-0000-7000-8000-000000000001","sources":[]}`},
		{Type: "vm.imported", Event: vm.Imported{NativeID: "n-1", Accelerator: "kvm", State: vm.StateRunning}, Data: `{"native_id":"n-1","accelerator":"kvm","state":"running"}`},
		{Type: "vm.import_failed", Event: vm.ImportFailed{Problem: noMemory}, Data: problemJSON},
		{Type: "vm.disk_change_ended", Event: vm.DiskChangeEnded{}, Data: `{}`},
		{Type: "vm.disk_change_ended", Event: vm.DiskChangeEnded{Problem: noMemory}, Data: problemJSON},
		{Type: "vm.update_failed", Event: vm.UpdateFailed{Problem: noMemory}, Data: problemJSON},
		{Type: "vm.snapshot_requested", Event: vm.SnapshotRequested{Intent: intent("vm.snapshot"), Taken: taken}, Data: `{"type":"vm.snapshot",` + intentJSON + `,` + takenJSON + `}`},
		{Type: "vm.snapshotted", Event: vm.Snapshotted{Taken: taken}, Data: `{` + takenJSON + `}`},
		{Type: "vm.snapshotted", Event: vm.Snapshotted{Taken: vm.Taken{Name: "a", State: vm.StateStopped}}, Data: `{"name":"a","parent":null,"description":"","memory":false,"state":"stopped"}`},
		{Type: "vm.snapshot_failed", Event: vm.SnapshotFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.restore_requested", Event: vm.RestoreRequested{Intent: intent("vm.restore_snapshot"), Restored: restored}, Data: `{"type":"vm.restore_snapshot",` + intentJSON + `,` + restoredJSON + `}`},
		{Type: "vm.restored", Event: restored, Data: `{` + restoredJSON + `}`},
		{Type: "vm.restored", Event: vm.Restored{Name: "a", State: vm.StateStopped}, Data: `{"name":"a","state":"stopped"}`},
		{Type: "vm.restore_failed", Event: vm.RestoreFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.snapshot_remove_requested", Event: vm.SnapshotRemoveRequested{Intent: intent("vm.delete_snapshot"), SnapshotRemoved: vm.SnapshotRemoved{Name: "b"}}, Data: `{"type":"vm.delete_snapshot",` + intentJSON + `,"name":"b"}`},
		{Type: "vm.snapshot_removed", Event: vm.SnapshotRemoved{Name: "b"}, Data: `{"name":"b"}`},
		{Type: "vm.snapshot_remove_failed", Event: vm.SnapshotRemoveFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{
			Type:  "vm.delete_requested",
			Event: vm.DeleteRequested{Operation: op, Force: true, KeepDisks: true},
			Data:  `{"operation":"01900000-0000-7000-8000-000000000004","force":true,"keep_disks":true}`,
		},
		{Type: "vm.remove_requested", Event: vm.RemoveRequested{Intent: intent("vm.remove")}, Data: `{"type":"vm.remove",` + intentJSON + `}`},
		{Type: "vm.removed", Event: vm.Removed{}, Data: `{}`},
		{Type: "vm.remove_failed", Event: vm.RemoveFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.delete_failed", Event: vm.DeleteFailed{Problem: noMemory, State: vm.StateStopped}, Data: failedJSON},
		{Type: "vm.deleted", Event: vm.Deleted{}, Data: `{}`},
	})
}
