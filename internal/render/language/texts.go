package language

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"text/template"

	sockaddr "github.com/hashicorp/go-sockaddr/template"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// texts are the functions from strings to strings. The last argument is what a pipe gives.
func texts() template.FuncMap {
	return template.FuncMap{
		"join":       func(separator string, list []string) string { return strings.Join(list, separator) },
		"trim":       func(cutset, s string) string { return strings.Trim(s, cutset) },
		"trimPrefix": func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
		"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"trimSpace":  strings.TrimSpace,
		"toLower":    strings.ToLower,
		"toUpper":    strings.ToUpper,
		"toTitle":    func(s string) string { return cases.Title(language.Und, cases.NoLower).String(s) },
		"replaceAll": func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"indent":     indent,
		"split":      split,
		"splitToMap": splitToMap,

		"regexMatch":      regexMatch,
		"regexReplaceAll": regexReplaceAll,

		"sha256Hex": func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
		"md5sum":    func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) },
		"hmacSHA256Hex": func(message, key string) string {
			mac := hmac.New(sha256.New, []byte(key))
			mac.Write([]byte(message))
			return hex.EncodeToString(mac.Sum(nil))
		},
		"sockaddr": func(args ...string) (string, error) { return sockaddr.Parse("{{ " + strings.Join(args, " ") + " }}") },
	}
}

// indent puts spaces before each line that is not empty.
func indent(spaces int, s string) (string, error) {
	if spaces < 0 {
		return "", errors.New("indent takes no negative number")
	}
	if spaces > maxOutput {
		return "", errTooLong
	}
	prefix := strings.Repeat(" ", spaces)
	var b strings.Builder
	for line := range strings.Lines(s) {
		if line != "\n" {
			b.WriteString(prefix)
		}
		b.WriteString(line)
		if b.Len() > maxOutput {
			return "", errTooLong
		}
	}
	return b.String(), nil
}

func split(separator, s string) []string {
	s = strings.TrimSpace(s)
	if s == "" {
		return []string{}
	}
	return strings.Split(s, separator)
}

// splitToMap splits into items and each into key and value; what has no value is left away.
func splitToMap(items, values, s string) map[string]string {
	m := map[string]string{}
	for _, item := range split(items, s) {
		if key, value, found := strings.Cut(item, values); found {
			m[key] = value
		}
	}
	return m
}

func regexMatch(expression, s string) (bool, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return false, fmt.Errorf("read expression: %w", err)
	}
	return re.MatchString(s), nil
}

func regexReplaceAll(expression, with, s string) (string, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return "", fmt.Errorf("read expression: %w", err)
	}
	return re.ReplaceAllString(s, with), nil
}
