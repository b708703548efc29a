package vm

import (
	"encoding/json"
	"fmt"
)

// nameDevices brings vm.create_requested from schema 1, whose disks and NICs had no names and whose machines had a
// serial console, a random number generator and no screen.
func nameDevices(old json.RawMessage) (json.RawMessage, error) {
	var event map[string]any
	if err := json.Unmarshal(old, &event); err != nil {
		return nil, err
	}
	spec, _ := event["spec"].(map[string]any)
	if spec == nil {
		return nil, fmt.Errorf("no spec")
	}
	each := func(list, prefix string, with map[string]any) {
		items, _ := spec[list].([]any)
		for i, item := range items {
			if device, ok := item.(map[string]any); ok {
				device["name"] = fmt.Sprintf("%s%d", prefix, i)
				for k, v := range with {
					device[k] = v
				}
			}
		}
	}
	each("disks", "disk", map[string]any{"cache": "default", "discard": "unmap", "limits": IOLimits{}})
	each("networks", "nic", map[string]any{"link": LinkUp, "mtu": nil, "boot_order": nil})
	spec["max_cpus"], spec["serial"], spec["rng"] = spec["cpus"], true, true
	return json.Marshal(event)
}

// collectChanged brings vm.updated and vm.update_requested from schema 1, where each changed field stood beside those
// of the intent.
func collectChanged(old json.RawMessage) (json.RawMessage, error) {
	var event Fields
	if err := json.Unmarshal(old, &event); err != nil {
		return nil, err
	}
	changed := Fields{}
	for _, name := range []string{"description", "tags", "autostart"} {
		if value, ok := event[name]; ok {
			changed[name] = value
			delete(event, name)
		}
	}
	doc, err := json.Marshal(changed)
	if err != nil {
		return nil, err
	}
	event["changed"] = doc
	return json.Marshal(event)
}
