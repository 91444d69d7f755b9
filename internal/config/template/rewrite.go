package template

import (
	"fmt"
	"strconv"
	"strings"
	"text/template/parse"

	texttemplate "text/template"
)

// The functions that only rewritten trees call. They are defined after a file was
// parsed, so that no file can.
const (
	textFunction     = "drover_text"     // the file's own text
	printFunction    = "drover_print"    // the output of an action
	variableFunction = "drover_variable" // a variable that must be set
	stepFunction     = "drover_step"     // counts the turns of a loop that prints nothing
)

func (r *run) hidden() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		textFunction: func(i int) (string, error) {
			r.pieces = append(r.pieces, piece{at: r.out.Len(), source: r.texts[i].at})
			return r.texts[i].text, r.step()
		},
		printFunction: func(i int, v any) (string, error) {
			text := fmt.Sprint(v)
			written, isYAML := v.(yaml)
			r.pieces = append(r.pieces, piece{at: r.out.Len(), source: r.actions[i].at, action: r.actions[i].text, value: text, yaml: isYAML})
			if isYAML {
				text = string(written)
			}
			return text, r.step()
		},
		variableFunction: r.variable,
		stepFunction:     func() (string, error) { return "", r.step() },
	}
}

func (r *run) step() error {
	if r.steps++; r.steps > maxSteps {
		return &Error{What: fmt.Sprintf("the template takes more than %d steps", maxSteps), Hint: "see its loops"}
	}
	return nil
}

// variable is a variable that must be set; at is where it is asked for.
func (r *run) variable(variable string, at int) (string, error) {
	value, ok := r.env(variable)
	if ok {
		return value, nil
	}
	line, column := place(r.source, r.actionStart(at))
	return "", &Error{
		Line: line, Column: column, What: fmt.Sprintf("variable %s is not set", variable),
		Hint: fmt.Sprintf(`set it, or write {{ .%s | default "…" }}`, variable),
	}
}

// rewrite makes a tree tell what it prints, and where that is from, and ask for
// variables in a way that tells an empty one from one that is not set.
func (r *run) rewrite(tree *parse.Tree) {
	w := rewriter{run: r, tree: tree}
	w.list(tree.Root, true)
	w.counted(tree.Root)
}

type rewriter struct {
	*run
	tree *parse.Tree
}

// list rewrites what stands in the file or in a branch. atRoot: the dot is the environment.
func (w rewriter) list(list *parse.ListNode, atRoot bool) {
	if list == nil {
		return
	}
	for i, node := range list.Nodes {
		switch n := node.(type) {
		case *parse.TextNode:
			list.Nodes[i] = w.statement(n.Pos, w.call(n.Pos, textFunction, number(n.Pos, len(w.texts))))
			w.texts = append(w.texts, span{int(n.Pos), string(n.Text)})
		case *parse.ActionNode:
			text := n.String()
			w.pipe(n.Pipe, atRoot, false)
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, w.call(n.Pos, printFunction, number(n.Pos, len(w.actions))))
				w.actions = append(w.actions, action{w.actionStart(int(n.Pos)), text})
			}
		case *parse.IfNode:
			w.branch(&n.BranchNode, atRoot, atRoot)
		case *parse.WithNode:
			w.branch(&n.BranchNode, atRoot, false)
		case *parse.RangeNode:
			w.branch(&n.BranchNode, atRoot, false)
			w.counted(n.List)
		case *parse.TemplateNode:
			w.pipe(n.Pipe, atRoot, false)
		}
	}
}

// branch rewrites if, with and range; inside: whether the dot is the environment there.
// The condition of an if may ask for a variable that is not set.
func (w rewriter) branch(n *parse.BranchNode, atRoot, inside bool) {
	w.pipe(n.Pipe, atRoot, n.NodeType != parse.NodeRange)
	w.list(n.List, inside)
	w.list(n.ElseList, atRoot)
}

// counted makes each turn of a list a step.
func (w rewriter) counted(list *parse.ListNode) {
	if list == nil {
		return
	}
	list.Nodes = append([]parse.Node{w.statement(list.Pos, w.call(list.Pos, stepFunction))}, list.Nodes...)
}

// pipe rewrites a pipeline. What goes into default, at any distance, may be unset.
func (w rewriter) pipe(p *parse.PipeNode, atRoot, mayBeUnset bool) {
	if p == nil {
		return
	}
	last := -1
	for i, command := range p.Cmds {
		if called(command) == "default" {
			last = i
		}
	}
	for i, command := range p.Cmds {
		w.command(command, atRoot, mayBeUnset || i <= last)
	}
}

func (w rewriter) command(c *parse.CommandNode, atRoot, mayBeUnset bool) {
	switch called(c) {
	case "default", "and", "or", "not":
		mayBeUnset = true
	}
	for i, arg := range c.Args {
		switch n := arg.(type) {
		case *parse.FieldNode:
			if atRoot && len(n.Ident) == 1 {
				c.Args[i] = w.ask(n.Pos, n.Ident[0], mayBeUnset)
			}
		case *parse.VariableNode:
			if len(n.Ident) == 2 && n.Ident[0] == "$" {
				c.Args[i] = w.ask(n.Pos, n.Ident[1], mayBeUnset)
			}
		case *parse.PipeNode:
			w.pipe(n, atRoot, mayBeUnset)
		}
	}
}

// called is the name of the function that a command calls, "" if none.
func called(c *parse.CommandNode) string {
	if f, ok := c.Args[0].(*parse.IdentifierNode); ok {
		return f.Ident
	}
	return ""
}

// ask is (drover_variable "NAME" at), or (env "NAME").
func (w rewriter) ask(pos parse.Pos, variable string, mayBeUnset bool) parse.Node {
	quoted := &parse.StringNode{NodeType: parse.NodeString, Pos: pos, Quoted: strconv.Quote(variable), Text: variable}
	c := w.call(pos, "env", quoted)
	if !mayBeUnset {
		c = w.call(pos, variableFunction, quoted, number(pos, int(pos)))
	}
	return pipeline(pos, c)
}

func (w rewriter) call(pos parse.Pos, function string, args ...parse.Node) *parse.CommandNode {
	f := parse.NewIdentifier(function).SetPos(pos).SetTree(w.tree)
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: append([]parse.Node{f}, args...)}
}

func (w rewriter) statement(pos parse.Pos, c *parse.CommandNode) parse.Node {
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: pos, Pipe: pipeline(pos, c)}
}

func pipeline(pos parse.Pos, c *parse.CommandNode) *parse.PipeNode {
	return &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{c}}
}

func number(pos parse.Pos, n int) parse.Node {
	return &parse.NumberNode{NodeType: parse.NodeNumber, Pos: pos, IsInt: true, Int64: int64(n), Text: strconv.Itoa(n)}
}

// oneLine keeps an action's text on a line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
