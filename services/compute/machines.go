package compute

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

// kind binds the decider of virtual machines to commands, effects and processes.
func (s *Service) kind() *engine.Kind[vm.Machine] {
	return &engine.Kind[vm.Machine]{
		Codec:   wire.Codec,
		Decider: vm.Decider,
		Intent:  vm.Intent,
		Names:   vm.Names,
		Perform: s.perform,
		Failed:  s.failed,
		Ended: func(op uuid.UUID, p *problem.Problem) any {
			return vm.ProcessEnded{Operation: op, Problem: p}
		},
		Commands: map[string]engine.Command[vm.Machine]{
			"create":           {Creates: true, Decode: decodeCreate, Prepare: s.prepareCreate, Plan: s.planCreate},
			"define":           {Decode: decodeDefine},
			"import":           {Creates: true, Decode: decodeImport, Prepare: s.prepareImport},
			"start":            {Decode: decodeStart, Prepare: s.prepareEffect},
			"stop":             {Decode: decodeStop, Prepare: s.prepareEffect, Overtakes: overtakes},
			"shutdown":         {Decode: decodeStop, Prepare: s.prepareEffect},
			"pause":            {Decode: decodePause, Prepare: s.prepareEffect},
			"resume":           {Decode: decodeResume, Prepare: s.prepareEffect},
			"reset":            {Decode: decodeReset, Prepare: s.prepareEffect},
			"reboot":           {Decode: decodeReboot, Prepare: s.prepareEffect},
			"update":           {Decode: decodeUpdate, Prepare: s.prepareUpdate},
			"attach_network":   {Decode: decodeAttachNIC, Prepare: s.prepareAttachNIC},
			"detach_network":   {Decode: decodeDetachNIC, Prepare: s.prepareEffect},
			"attach_disk":      {Decode: decodeAttachDisk, Prepare: s.prepareAttachDisk, Plan: planAttachDisk},
			"detach_disk":      {Decode: decodeDetachDisk, Prepare: s.prepareEffect, Plan: planDetachDisk},
			"resize_disk":      {Decode: decodeResizeDisk, Prepare: s.prepareEffect, Plan: planResizeDisk},
			"change_disk":      {Decode: decodeChangeDisk},
			"snapshot":         {Decode: decodeSnapshot, Prepare: s.prepareSnapshot},
			"restore_snapshot": {Decode: decodeRestoreSnapshot, Prepare: s.prepareEffect},
			"delete_snapshot":  {Decode: decodeDeleteSnapshot, Prepare: s.prepareEffect},
			"delete":           {Decode: decodeDelete, Prepare: s.prepareEffect, Plan: planDelete, Overtakes: overtakes},
			"remove":           {Decode: func(c events.Command) (any, error) { return vm.Remove{Intent: c.Intent()}, nil }},
		},
	}
}

// create is a create in the making: the decider gets Command.
type create struct {
	vm.Create
	data wire.CreateData
}

func decodeCreate(c events.Command) (any, error) {
	data, err := engine.StrictData[wire.CreateData](c)
	return create{data: data, Create: vm.Create{Intent: c.Intent(), Spec: data.Spec}}, err
}

func decodeStart(c events.Command) (any, error) { return vm.Start{Intent: c.Intent()}, nil }

func decodePause(c events.Command) (any, error) { return vm.Pause{Intent: c.Intent()}, nil }

func decodeResume(c events.Command) (any, error) { return vm.Resume{Intent: c.Intent()}, nil }

func decodeReset(c events.Command) (any, error) { return vm.Reset{Intent: c.Intent()}, nil }

func decodeReboot(c events.Command) (any, error) { return vm.Reboot{Intent: c.Intent()}, nil }

func decodeImport(c events.Command) (any, error) {
	_, err := engine.StrictData[wire.ImportData](c)
	return vm.Import{Intent: c.Intent()}, err
}

// decodeWith reads the data of a command and hands it on with the command's intent.
func decodeWith[D, C any](with func(events.Intent, D) C) func(events.Command) (any, error) {
	return func(c events.Command) (any, error) {
		data, err := engine.StrictData[D](c)
		return with(c.Intent(), data), err
	}
}

var (
	decodeStop   = decodeWith(func(i events.Intent, d wire.StopData) vm.Stop { return vm.Stop{Intent: i, StopData: d} })
	decodeUpdate = decodeWith(func(i events.Intent, d wire.UpdateData) vm.Update { return vm.Update{Intent: i, UpdateData: d} })
	decodeDelete = decodeWith(func(i events.Intent, d wire.DeleteData) vm.Delete { return vm.Delete{Intent: i, DeleteData: d} })

	decodeAttachNIC = decodeWith(func(i events.Intent, d wire.AttachNICData) vm.AttachNIC {
		return vm.AttachNIC{Intent: i, AttachNICData: d}
	})
	decodeDetachNIC = decodeWith(func(i events.Intent, d wire.DetachNICData) vm.DetachNIC {
		return vm.DetachNIC{Intent: i, DetachNICData: d}
	})
	decodeAttachDisk = decodeWith(func(i events.Intent, d wire.AttachDiskData) vm.AttachDisk {
		return vm.AttachDisk{Intent: i, AttachDiskData: d}
	})
	decodeDetachDisk = decodeWith(func(i events.Intent, d wire.DetachDiskData) vm.DetachDisk {
		return vm.DetachDisk{Intent: i, DetachDiskData: d}
	})
	decodeResizeDisk = decodeWith(func(i events.Intent, d wire.ResizeDiskData) vm.ResizeDisk {
		return vm.ResizeDisk{Intent: i, ResizeDiskData: d}
	})
)

// overtakes: only force does.
func overtakes(decoded any) bool {
	switch c := decoded.(type) {
	case vm.Stop:
		return c.Force
	case vm.Delete:
		return c.Force
	}
	return false
}

func diskStep(i int) string { return fmt.Sprintf("disk %d", i) }

// decodeDefine takes the sources of the disks from the results of the steps that created them.
func decodeDefine(c events.Command) (any, error) {
	d := vm.Define{Intent: c.Intent()}
	for i := 0; ; i++ {
		raw, ok := c.Inputs[diskStep(i)]
		if !ok {
			return d, nil
		}
		var v volume.Created
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("result of step %s: %w", diskStep(i), err)
		}
		d.Sources = append(d.Sources, wire.Source{Type: v.Type, Path: v.Path, Format: v.Format})
	}
}

// planCreate: the disks, each taken back by its delete; then the domain, after which nothing is taken back; then the
// start.
func (s *Service) planCreate(c events.Command, m vm.Machine) []operation.StepPlan {
	self := events.Address{Domain: Domain, Node: m.Node.String()}
	storage := events.Address{Domain: "storage", Node: m.Node.String()}
	owner := c.Stream()
	var steps []operation.StepPlan
	for i, d := range m.Spec.Disks {
		steps = append(steps, makeVolume(diskStep(i), storage, owner, d))
	}
	steps = append(steps, operation.StepPlan{
		Name: "define", Do: operation.Call{To: self, Type: "vm.define", Target: c.Target}, NoReturn: true,
	})
	var request wire.CreateData
	if json.Unmarshal(c.Data, &request) == nil && request.Start {
		steps = append(steps, operation.StepPlan{Name: "start", Do: operation.Call{To: self, Type: "vm.start", Target: c.Target}})
	}
	return steps
}

// planDelete: the domain, after which there is no way back; then the disks, or their release.
func planDelete(c events.Command, m vm.Machine) []operation.StepPlan {
	self := events.Address{Domain: Domain, Node: m.Node.String()}
	storage := events.Address{Domain: "storage", Node: m.Node.String()}
	steps := []operation.StepPlan{{
		Name: "remove", Do: operation.Call{To: self, Type: "vm.remove", Target: c.Target}, NoReturn: true,
	}}
	verb := "volume.delete"
	if m.Delete.KeepDisks {
		verb = "volume.release"
	}
	for i, d := range slices.Concat(m.Spec.Disks, m.Strayed) {
		if d.VolumeID == uuid.Nil {
			continue // of a machine that was adopted: the file is somebody else's
		}
		steps = append(steps, operation.StepPlan{
			Name: diskStep(i),
			Do:   operation.Call{To: storage, Type: verb, Target: d.VolumeID, Data: data(volume.DeleteData{Owner: c.Stream()})},
		})
	}
	return steps
}

func data(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("compute: marshal %T: %v", v, err)) // plain fields
	}
	return b
}
