package consul

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// upkeepNote begins the reason of a maintenance that we have begun: one of an operator's
// is not ended by us.
const upkeepNote = "drover: "

// checkID is the check that reports go to, as Consul itself would call it.
func checkID(instance string) string { return "service:" + instance }

// Register implements coord.Registry.
func (c *Coordinator) Register(ctx context.Context, r coord.Registration) error {
	if err := coord.CheckRegistration(r); err != nil {
		return err
	}
	check := &api.AgentServiceCheck{CheckID: checkID(r.ID), Name: "Drover", TTL: r.TTL.String(), Status: toStatus(r.Initial)}
	if r.DeregisterAfter > 0 {
		check.DeregisterCriticalServiceAfter = r.DeregisterAfter.String()
	}
	short, cancel := c.short(ctx)
	defer cancel()
	if err := c.leaveName(short, r); err != nil {
		return explain(ctx, "register "+r.ID, err)
	}
	err := c.api.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: r.ID, Name: r.Name, Address: r.Address, Port: r.Port, Tags: r.Tags, Meta: r.Meta, Check: check,
	}, api.ServiceRegisterOpts{}.WithContext(short))
	if err == nil && r.Initial == coord.Maintenance {
		err = c.maintain(short, r.ID, "")
	}
	return explain(ctx, "register "+r.ID, err)
}

// leaveName removes an instance that has another name so far: who watches that one is
// not woken when the agent only gives the instance the new one.
func (c *Coordinator) leaveName(ctx context.Context, r coord.Registration) error {
	known, _, err := c.api.Agent().Service(r.ID, c.query(ctx))
	switch {
	case codeOf(err) == http.StatusNotFound:
		return nil
	case err != nil || known.Service == r.Name:
		return err
	}
	return c.api.Agent().ServiceDeregisterOpts(r.ID, c.query(ctx))
}

// toStatus is the check's status. That of maintenance is another check's, beside which ours is
// neither good nor the reason to remove the instance.
func toStatus(s coord.Status) string {
	switch s {
	case coord.Passing:
		return api.HealthPassing
	case coord.Warning, coord.Maintenance:
		return api.HealthWarning
	}
	return api.HealthCritical
}

// Report implements coord.Registry.
func (c *Coordinator) Report(ctx context.Context, id string, s coord.Status, note string) error {
	if err := coord.CheckKey(id); err != nil {
		return err
	}
	short, cancel := c.short(ctx)
	defer cancel()
	err := c.report(short, id, s, note)
	// Consul says 500 of what it has not, too.
	if code := codeOf(err); (code == http.StatusNotFound || code == http.StatusInternalServerError) && c.forgotten(short, id) {
		c.setServing(id, false)
		err = fmt.Errorf("%w: %w", coord.ErrNotFound, err)
	}
	return explain(ctx, "report "+id, err)
}

func (c *Coordinator) report(ctx context.Context, id string, s coord.Status, note string) error {
	if s == coord.Maintenance {
		if err := c.maintain(ctx, id, note); err != nil {
			return err
		}
	}
	if err := c.api.Agent().UpdateTTLOpts(checkID(id), note, toStatus(s), c.query(ctx)); err != nil || s == coord.Maintenance {
		return err
	}
	return c.endMaintenance(ctx, id)
}

func (c *Coordinator) maintain(ctx context.Context, id, note string) error {
	c.setServing(id, false)
	return c.api.Agent().EnableServiceMaintenanceOpts(id, upkeepNote+note, c.query(ctx))
}

// endMaintenance ends a maintenance that we have begun, or an earlier agent has.
func (c *Coordinator) endMaintenance(ctx context.Context, id string) error {
	c.mu.Lock()
	serving := c.serving[id]
	c.mu.Unlock()
	if serving {
		return nil
	}
	checks, err := c.checks(ctx, api.ServiceMaintPrefix+id)
	if err != nil {
		return err
	}
	for _, check := range checks {
		if strings.HasPrefix(check.Notes, upkeepNote) {
			if err := c.api.Agent().DisableServiceMaintenanceOpts(id, c.query(ctx)); err != nil {
				return err
			}
		}
	}
	c.setServing(id, true)
	return nil
}

// setServing notes whether the instance is known to be in no maintenance of ours.
func (c *Coordinator) setServing(id string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !known {
		delete(c.serving, id)
		return
	}
	c.serving[id] = true
}

// checks are those of the agent with this ID.
func (c *Coordinator) checks(ctx context.Context, id string) (map[string]*api.AgentCheck, error) {
	return c.api.Agent().ChecksWithFilterOpts(fmt.Sprintf("CheckID == %q", id), c.query(ctx))
}

// forgotten says whether the agent is known to have no such instance that reports.
func (c *Coordinator) forgotten(ctx context.Context, id string) bool {
	checks, err := c.checks(ctx, checkID(id))
	return err == nil && len(checks) == 0
}

// Deregister implements coord.Registry.
func (c *Coordinator) Deregister(ctx context.Context, id string) error {
	if err := coord.CheckKey(id); err != nil {
		return err
	}
	c.setServing(id, false)
	short, cancel := c.short(ctx)
	defer cancel()
	err := c.api.Agent().ServiceDeregisterOpts(id, c.query(short))
	if code := codeOf(err); code == http.StatusNotFound || code == http.StatusInternalServerError {
		left, failed := c.api.Agent().ServicesWithFilterOpts(fmt.Sprintf("ID == %q", id), c.query(short))
		if failed == nil && len(left) == 0 {
			return nil
		}
	}
	return explain(ctx, "deregister "+id, err)
}
