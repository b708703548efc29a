package telemetry

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/usage"
)

// Unmanaged are the guests that others made on all nodes.
type Unmanaged struct {
	Items   []vm.Unmanaged  `json:"items"`
	Missing []usage.Missing `json:"missing"` // nodes that do not answer
}

// Unmanaged asks every node at once for the guests that others made.
func (r Reader) Unmanaged(ctx context.Context) (Unmanaged, error) {
	out := Unmanaged{Items: []vm.Unmanaged{}}
	parts, missing, err := gather(ctx, r, func(ctx context.Context, n Node) (items []vm.Unmanaged, err error) {
		doc, err := r.ask(ctx, n.ID, vm.UnmanagedMethod, usage.Question{})
		if err == nil {
			err = json.Unmarshal(doc, &items)
		}
		return items, err
	})
	for _, items := range parts {
		out.Items = append(out.Items, items...)
	}
	slices.SortFunc(out.Items, func(a, b vm.Unmanaged) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Node.String(), b.Node.String())) })
	out.Missing = missing
	return out, err
}
