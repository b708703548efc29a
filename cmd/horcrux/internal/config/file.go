package config

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setting is one value of the file.
type setting struct {
	key    key
	texts  []string
	origin string // file:line
}

// parse reads the configuration file. It returns the settings that it could read and an error that joins one for every
// key that is unknown, given twice, or of the wrong kind.
func parse(path string, raw []byte) ([]setting, error) {
	decoder := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil // empty, or nothing but comments
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err) // yaml's error has the line
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: holds more than one document", path)
	}
	p := &parser{path: path, seen: map[string]int{}}
	p.mapping("", doc.Content[0])
	return p.settings, errors.Join(p.mistakes...)
}

type parser struct {
	path     string
	seen     map[string]int // key → line
	settings []setting
	mistakes []error
}

func (p *parser) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", p.path, n.Line) }

func (p *parser) mistake(n *yaml.Node, format string, args ...any) {
	p.mistakes = append(p.mistakes, fmt.Errorf("%s: %w", p.at(n), fmt.Errorf(format, args...)))
}

// mapping reads a group of keys, whose names begin with prefix.
func (p *parser) mapping(prefix string, n *yaml.Node) {
	if isNull(n) {
		return // a group without members
	}
	if n.Kind != yaml.MappingNode {
		p.mistake(n, "%s needs keys with values", nameOf(prefix))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full := prefix + name.Value
		if line, twice := p.seen[full]; twice {
			p.mistake(name, "%s is given already in line %d", full, line)
			continue
		}
		p.seen[full] = name.Line
		switch k, known := find(full); {
		case known && !strings.Contains(name.Value, "."):
			p.setting(k, value)
		case isGroup(full):
			p.mapping(full+".", value)
		default:
			p.mistake(name, "unknown key %s", full)
		}
	}
}

// setting reads one value; null leaves the key at its default.
func (p *parser) setting(k key, n *yaml.Node) {
	if isNull(n) {
		return
	}
	var texts []string
	switch {
	case k.value.isList() && n.Kind == yaml.SequenceNode:
		texts = []string{}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || isNull(item) {
				p.mistake(item, "%s needs a list of plain values", k.name)
				return
			}
			texts = append(texts, item.Value)
		}
	case !k.value.isList() && n.Kind == yaml.ScalarNode:
		texts = []string{n.Value}
	case k.value.isList():
		p.mistake(n, "%s needs a list", k.name)
		return
	default:
		p.mistake(n, "%s needs one plain value", k.name)
		return
	}
	p.settings = append(p.settings, setting{key: k, texts: texts, origin: p.at(n)})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func isGroup(name string) bool {
	for _, k := range keys {
		if strings.HasPrefix(k.name, name+".") {
			return true
		}
	}
	return false
}

func nameOf(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return strings.TrimSuffix(prefix, ".")
}
