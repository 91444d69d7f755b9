package language

import (
	"errors"
	"fmt"
	"reflect"
	"text/template"
)

// operation works on two numbers of one kind.
type operation struct {
	signed   func(a, b int64) (int64, error)
	unsigned func(a, b uint64) (uint64, error)
	floating func(a, b float64) (float64, error) // nil: there is none
}

var errByZero = errors.New("division by zero")

// arithmetic are the functions on numbers. The last argument is what a pipe gives, and
// stands on the left: {{ 7 | subtract 2 }} is 5.
func arithmetic() template.FuncMap {
	return template.FuncMap{
		"add":      operator("add", operation{sure(sum[int64]), sure(sum[uint64]), sure(sum[float64])}),
		"subtract": operator("subtract", operation{sure(difference[int64]), sure(difference[uint64]), sure(difference[float64])}),
		"multiply": operator("multiply", operation{sure(product[int64]), sure(product[uint64]), sure(product[float64])}),
		"divide": operator("divide", operation{quotient[int64], quotient[uint64],
			sure(func(a, b float64) float64 { return a / b })}),
		"modulo":  operator("modulo", operation{rest[int64], rest[uint64], nil}),
		"minimum": chooser("minimum", -1),
		"maximum": chooser("maximum", 1),
	}
}

type number interface{ ~int64 | ~uint64 | ~float64 }

func sum[T number](a, b T) T        { return a + b }
func difference[T number](a, b T) T { return a - b }
func product[T number](a, b T) T    { return a * b }

func sure[T any](f func(a, b T) T) func(a, b T) (T, error) {
	return func(a, b T) (T, error) { return f(a, b), nil }
}

func quotient[T int64 | uint64](a, b T) (T, error) {
	if b == 0 {
		return 0, errByZero
	}
	return a / b, nil
}

func rest[T int64 | uint64](a, b T) (T, error) {
	if b == 0 {
		return 0, errByZero
	}
	return a % b, nil
}

// numbers reads two numbers, of whichever kinds.
func numbers(name string, a, b any) (av, bv reflect.Value, err error) {
	av, bv = reflect.ValueOf(a), reflect.ValueOf(b)
	for _, v := range []reflect.Value{av, bv} {
		if !v.IsValid() || !v.CanInt() && !v.CanUint() && !v.CanFloat() {
			return av, bv, fmt.Errorf("%s takes numbers, not %T and %T", name, a, b)
		}
	}
	return av, bv, nil
}

func signed(v reflect.Value) int64 {
	if v.CanUint() {
		return int64(v.Uint())
	}
	return v.Int()
}

func floating(v reflect.Value) float64 {
	if v.CanFloat() {
		return v.Float()
	}
	if v.CanUint() {
		return float64(v.Uint())
	}
	return float64(v.Int())
}

func operator(name string, op operation) func(b, a any) (any, error) {
	return func(b, a any) (any, error) {
		av, bv, err := numbers(name, a, b)
		switch {
		case err != nil:
			return nil, err
		case av.CanUint() && bv.CanUint():
			return op.unsigned(av.Uint(), bv.Uint())
		case !av.CanFloat() && !bv.CanFloat():
			return op.signed(signed(av), signed(bv))
		case op.floating == nil:
			return nil, fmt.Errorf("%s takes whole numbers, not %T and %T", name, a, b)
		}
		return op.floating(floating(av), floating(bv))
	}
}

// chooser returns the one of two that is smaller (way -1) or larger (1), as it is.
func chooser(name string, way int) func(b, a any) (any, error) {
	return func(b, a any) (any, error) {
		av, bv, err := numbers(name, a, b)
		if err != nil {
			return nil, err
		}
		if compare(av, bv) == way {
			return widest(av), nil
		}
		return widest(bv), nil
	}
}

func compare(a, b reflect.Value) int {
	switch {
	case a.CanUint() && b.CanUint():
		return order(a.Uint(), b.Uint())
	case !a.CanFloat() && !b.CanFloat():
		return order(signed(a), signed(b))
	}
	return order(floating(a), floating(b))
}

// order of two numbers; nothing is smaller or larger than what is no number.
func order[T number](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func widest(v reflect.Value) any {
	switch {
	case v.CanInt():
		return v.Int()
	case v.CanUint():
		return v.Uint()
	}
	return v.Float()
}
