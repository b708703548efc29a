package problem

// Document is a problem as RFC 9457 writes it, for whoever reads an answer. What is recorded is the Problem alone: type,
// title and status follow from its code.
type Document struct {
	Type   string `json:"type"` // a URI that names the code
	Title  string `json:"title"`
	Status int    `json:"status"` // of HTTP
	Problem
}

// Document of a problem; of none it is nil.
func (p *Problem) Document() *Document {
	if p == nil {
		return nil
	}
	return &Document{Type: "urn:horcrux:problem:" + string(p.Code), Title: p.Code.Title(), Status: p.Code.Status(), Problem: *p}
}
