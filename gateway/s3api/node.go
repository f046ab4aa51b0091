package s3api

import (
	"encoding/xml"
	"math"
	"slices"
	"strconv"
	"strings"
)

// node is a document as it came, for those of which nothing may be overlooked.
// encoding/xml passes over what a struct has no field for.
type node struct {
	XMLName  xml.Name
	Text     string `xml:",chardata"`
	Children []node `xml:",any"`
	space    string // of all of it
}

func leaf(name, text string) node { return node{XMLName: xml.Name{Local: name}, Text: text} }

// text is that of a leaf without the white space around it; empty where there is none.
func (n *node) text() string {
	if n == nil || len(n.Children) > 0 {
		return ""
	}
	return strings.TrimSpace(n.Text)
}

// parts are the children by their names. Others, and one that comes twice, make the
// document malformed.
func (n *node) parts(names ...string) (map[string]*node, error) {
	parts := make(map[string]*node, len(n.Children))
	for i := range n.Children {
		name := n.Children[i].XMLName.Local
		if parts[name] != nil || !slices.Contains(names, name) {
			return nil, malformedXML()
		}
		parts[name] = &n.Children[i]
	}
	return parts, nil
}

// positive reads a number from 1 on.
func (n *node) positive(name, action string) (int, error) {
	value, err := strconv.ParseInt(n.text(), 10, 64)
	if err != nil || value > math.MaxInt32 {
		return 0, malformedXML()
	}
	if value < 1 {
		return 0, invalidArgument("'"+name+"' for "+action+" action must be a positive integer", name, n.text())
	}
	return int(value), nil
}

// root is the node as a document in S3's namespace.
func (n node) root() node {
	n.space = namespace
	return n
}

// MarshalXML writes the node with all that is in it, without attributes.
func (n node) MarshalXML(to *xml.Encoder, _ xml.StartElement) error {
	start := xml.StartElement{Name: xml.Name{Local: n.XMLName.Local}}
	if n.space != "" {
		start.Attr = []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: n.space}}
	}
	if len(n.Children) == 0 {
		return to.EncodeElement(n.Text, start)
	}
	if err := to.EncodeToken(start); err != nil {
		return err
	}
	for _, child := range n.Children {
		if err := to.Encode(child); err != nil {
			return err
		}
	}
	return to.EncodeToken(start.End())
}
