package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestTemplatesSecretsAndGitAreRead(t *testing.T) {
	c, err := Load(sources(t, `
coordinator: consul://127.0.0.1:8500
secrets: {vault: {address: "https://vault:8200", kubernetes: shop, poll: 1m}}
git_listen: ":8080"
git:
  conf: {url: "https://git.example/conf.git", branches: [main, "release/*"], expand: true, arrays: index, hooks: {github: /run/secrets/hook, gitea: {secret_file: /s, path: /x}}}
templates:
  nginx:
    source: /etc/nginx.tpl
    destination: /etc/nginx/nginx.conf
    mode: 0640
    delimiters: ["[[", "]]"]
    wait: 2s
    check: {command: [nginx, -t, -c, "{file}"]}
    on_change: {signal: web}
    roll: 2
  other: {content: "[[ key \"a\" ]]", destination: /tmp/o, wait: {min: 1s, max: 3s}, on_change: {reload: "true"}, roll: {limit: 1, name: nginx}}
jobs:
  web: {command: nginx, main: true, env_templates: {LEVEL: "[[ key \"level\" ]]"}, fd_templates: {3: "[[ key \"conf\" ]]", "1023": x}}
  agent: {command: agent, early: true}
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	n, o, g := c.Templates["nginx"], c.Templates["other"], c.Git["conf"]
	got := fmt.Sprint(n.Mode, n.Delimiters, n.Wait, n.Check.Command, n.Check.Timeout, n.OnChange.Signal, n.OnChange.With, n.MakeDirs, n.Roll.Limit, n.Roll.Settle,
		o.Mode, o.Wait, o.OnChange.Reload, o.Roll.Name, c.Secrets.Vault.Kubernetes.Role, c.Secrets.Vault.Poll,
		g.Branches, g.Mode, g.Keep, g.Hooks["github"].SecretFile, g.Hooks["gitea"].Path, len(c.Jobs["web"].EnvTemplates), c.Jobs["web"].FDTemplates, c.Jobs["agent"].Early)
	want := "0640[[[ ]]]{2s 0}[nginx -t -c {file}]30swebHUPtrue210s0600{1s 3s}[/bin/sh -c true]nginxshop1m[main release/*]atomic5/run/secrets/hook/x1map[1023:x 3:[[ key \"conf\" ]]]true"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTemplatesSecretsAndGitThatCannotBe(t *testing.T) {
	template := func(rest string) string {
		return "coordinator: consul://h:1\njobs: {a: {command: x}}\ntemplates: {t: {" + rest + "}}"
	}
	const whole = "content: x, destination: /tmp/x, "
	vault := func(rest string) string { return "secrets: {vault: {address: \"https://h:1\", " + rest + "}}" }
	git := func(rest string) string {
		return "coordinator: consul://h:1\ngit: {r: {url: \"https://h/r\", " + rest + "}}"
	}
	for text, want := range map[string]string{
		template("destination: /tmp/x"):                                                                      `has no text, or two`,
		template("content: x, source: /y, destination: /tmp/x"):                                              `has no text, or two`,
		template("content: x"):                                                                               `destination "" is not absolute`,
		template("source: y, destination: /tmp/x"):                                                           `source "y" is not absolute`,
		template(whole + "mode: 0888"):                                                                       `"0888" are no permissions; write them as 0640`,
		template(whole + "delimiters: \"[[\""):                                                               `has 1 delimiters`,
		template(whole + "wait: {min: 2s, max: 1s}"):                                                         `max is less than min`,
		"wait: {min: 2s, max: 1s}\njobs: {a: {command: x}}":                                                  `:1:22: max is less than min`,
		"jobs: {a: {command: x, fd_templates: {2: x}}}":                                                      `file descriptor 2 of job "a" is out of range`,
		"jobs: {a: {command: x, fd_templates: {03: x}}}":                                                     `is out of range`,
		"jobs: {a: {command: x, ready: {fd: 4}, fd_templates: {4: x}}}":                                      `tells at file descriptor 4 that it is ready`,
		template(whole + "on_change: {signal: b}"):                                                           `template "t" changes "b", which is no job`,
		template(whole + "on_change: {signal: a, restart: a}"):                                               `keep one of signal, restart, reload and run`,
		template(whole + "roll: -1"):                                                                         `is negative`,
		template(whole + "roll: {limit: 1, settle: 1m, timeout: 1s}"):                                        `do not fit`,
		"templates: {t: {" + whole + "roll: 1}}":                                                             `there is no coordinator`,
		"store: {url: file:///s, password: x}\nstate: [/d]\ntemplates: {t: {content: x, destination: /d/x}}": `a restore would remove it`,
		template(whole + "}, u: {content: y, destination: /tmp//x"):                                          `templates "t" and "u" write the same file`,
		"secrets: {vault: {token_file: /t}}":                                                                 `Vault has no address`,
		vault("poll: 1m"):                                                                                    `there are 0 ways to log in`,
		vault("token: x, kubernetes: r"):                                                                     `there are 2 ways to log in to Vault (kubernetes, token)`,
		vault("approle: {mount: x}"):                                                                         `add role_id_file`,
		vault("approle: {role_id_file: /r, wrapped_path: p}"):                                                `add secret_id_file`,
		vault("jwt: {role: r}"):                                                                              `lacks its role, or the file of its token`,
		vault("cert: {cert: /c}"):                                                                            `lacks its certificate`,
		"secrets: {vault: {address: \"h:1\", token_file: /t}}":                                               `is not a URL of a host`,
		git("keep: 0"):             `cannot keep 0 trees`,
		git("poll: 1ms"):           `too short`,
		git("branches: \"[\""):     `is not valid`,
		git("mode: both"):          `mode`,
		git("hooks: {github: /s}"): `nowhere for them to come in`,
		git("hooks: {svn: /s}"):    `svn`,
		git("key_file: k"):         `is not absolute`,
		"coordinator: consul://h:1\ngit: {r: {url: \"https://u:p@h/r\"}}": `holds credentials`,
		"coordinator: consul://h:1\ngit: {r: {branches: x}}":              `has no URL`,
		"git: {r: {url: \"https://h/r\"}}":                                `there is no coordinator`,
	} {
		_, err := Load(sources(t, text, nil, nil))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nwant %s", text, err, want)
		}
	}
}
