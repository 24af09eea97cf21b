//! Which variable a name means, decided as Jinja's compiler decides it: per scope, before anything runs.
//!
//! A name that a scope assigns anywhere is that scope's own, and begins with what it is further out or with nothing; any
//! other is looked up outwards, at last among the variables of the render, when the scope begins.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ast::*;
use super::error::{Error, Result};
use super::{filter, test};

/// The names of one scope. Branches of an `if` are analysed in copies that are joined again.
#[derive(Clone)]
struct Symbols<'a> {
    outer: Option<&'a Symbols<'a>>,
    depth: u16,
    id: u32,
    own: HashMap<Arc<str>, Place>,
    order: Vec<Arc<str>>,
    loads: HashMap<Arc<str>, Load>,
    stores: HashSet<Arc<str>>,
}

/// Numbers the variables of a function: one number for a name in a scope, in all its branches.
struct Slots {
    next: u32,
    depth: u16,
    scopes: u32,
    given: HashMap<(u32, Arc<str>), u32>,
}

impl Slots {
    fn new(depth: u16) -> Self {
        Self { next: 0, depth, scopes: 0, given: HashMap::new() }
    }

    fn give(&mut self, scope: u32, name: &Arc<str>) -> Place {
        let slot = *self.given.entry((scope, name.clone())).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        Place { depth: self.depth, slot }
    }
}

/// Resolves all names of a template.
pub(crate) fn resolve(mut body: Vec<Stmt>) -> Result<Tree> {
    let mut slots = Slots::new(0);
    let mut symbols = Symbols::new(None, &mut slots);
    symbols.read_all(&body, &mut slots);
    let place = Placing { symbols: &symbols, top: true, soft: false };
    place.statements(&mut body, &mut slots)?;
    Ok(Tree { body, scope: symbols.scope(), slots: slots.next })
}

impl<'a> Symbols<'a> {
    fn new(outer: Option<&'a Symbols<'a>>, slots: &mut Slots) -> Self {
        slots.scopes += 1;
        let (own, order, loads, stores) = Default::default();
        Self { outer, depth: slots.depth, id: slots.scopes, own, order, loads, stores }
    }

    fn find(&self, name: &str) -> Option<Place> {
        self.own.get(name).copied().or_else(|| self.outer?.find(name))
    }

    fn define(&mut self, name: &Arc<str>, load: Load, slots: &mut Slots) -> Place {
        let place = slots.give(self.id, name);
        if self.own.insert(name.clone(), place).is_none() {
            self.order.push(name.clone());
        }
        self.loads.insert(name.clone(), load);
        place
    }

    fn load(&mut self, name: &Arc<str>, slots: &mut Slots) {
        if self.find(name).is_none() {
            self.define(name, Load::Context, slots);
        }
    }

    fn store(&mut self, name: &Arc<str>, slots: &mut Slots) {
        self.stores.insert(name.clone());
        if self.own.contains_key(name) {
            return;
        }
        let outer = self.outer.and_then(|outer| outer.find(name));
        self.define(name, outer.map_or(Load::Missing, Load::Outer), slots);
    }

    fn parameter(&mut self, name: &Arc<str>, slots: &mut Slots) -> Name {
        self.stores.insert(name.clone());
        Name { text: name.clone(), place: self.define(name, Load::Parameter, slots) }
    }

    fn scope(&self) -> Scope {
        let load = |text: &Arc<str>| (Name { text: text.clone(), place: self.own[text] }, self.loads[text]);
        Scope { loads: self.order.iter().map(load).collect() }
    }

    fn read_all(&mut self, body: &[Stmt], slots: &mut Slots) {
        body.iter().for_each(|statement| self.read(statement, slots));
    }

    /// Notes the names that a statement loads and stores in this scope; inner scopes are left to themselves.
    fn read(&mut self, statement: &Stmt, slots: &mut Slots) {
        match &statement.kind {
            Statement::Text(_) | Statement::Break | Statement::Continue | Statement::Generation(_) => {}
            Statement::Print(value) => self.read_expr(value, slots),
            Statement::If { branches, otherwise } => self.read_branches(branches, otherwise, slots),
            Statement::For(inner) => self.read_expr(&inner.iter, slots),
            Statement::Set { target, value, .. } => {
                self.read_expr(value, slots);
                self.read_target(target, slots);
            }
            Statement::SetBlock { target, .. } => self.read_target(target, slots),
            Statement::With { targets, .. } => targets.iter().for_each(|(_, value)| self.read_expr(value, slots)),
            Statement::FilterBlock { filter, .. } => self.read_expr(filter, slots),
            Statement::Macro { name, .. } => self.store(&name.text, slots),
            Statement::Call { call, .. } => self.read_expr(call, slots),
        }
    }

    fn read_target(&mut self, target: &Target, slots: &mut Slots) {
        match target {
            Target::Name(name) => self.store(&name.text, slots),
            Target::Attribute(name, _) => self.load(&name.text, slots),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.read_target(target, slots)),
        }
    }

    fn read_parameters(&mut self, target: &Target, slots: &mut Slots) {
        match target {
            Target::Name(name) => drop(self.parameter(&name.text, slots)),
            Target::Attribute(name, _) => self.load(&name.text, slots),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.read_parameters(target, slots)),
        }
    }

    fn read_expr(&mut self, expr: &Expr, slots: &mut Slots) {
        if let Kind::Name(name) = &expr.kind {
            self.load(&name.text, slots);
        }
        each_part(expr, &mut |part| self.read_expr(part, slots));
    }

    /// A name that only some branches store begins with what it is without them.
    fn read_branches(&mut self, branches: &[(Expr, Vec<Stmt>)], otherwise: &[Stmt], slots: &mut Slots) {
        self.read_expr(&branches[0].0, slots);
        let mut copies = vec![self.clone(), self.clone(), self.clone()];
        copies[0].read_all(&branches[0].1, slots);
        // As in Jinja, each `elif` is an `if` within the second of three branches.
        for branch in branches[1..].chunks(1) {
            copies[1].read_branches(branch, &[], slots);
        }
        copies[2].read_all(otherwise, slots);
        self.join(copies);
    }

    fn join(&mut self, branches: Vec<Symbols<'a>>) {
        let before = self.stores.clone();
        let count = branches.len();
        let mut stored: HashMap<Arc<str>, usize> = HashMap::new();
        for branch in branches {
            for name in branch.stores.difference(&before) {
                *stored.entry(name.clone()).or_default() += 1;
            }
            for name in branch.order {
                if !self.own.contains_key(&name) {
                    self.own.insert(name.clone(), branch.own[&name]);
                    self.order.push(name.clone());
                }
                self.loads.insert(name.clone(), branch.loads[&name]);
            }
            self.stores.extend(branch.stores);
        }
        for (name, branches) in stored {
            if branches < count {
                let outer = self.outer.and_then(|outer| outer.find(&name));
                self.loads.insert(name, outer.map_or(Load::Context, Load::Outer));
            }
        }
    }
}

/// Calls `visit` on the direct parts of an expression.
fn each_part(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Name(_) => {}
        Kind::Tuple(items) | Kind::List(items) | Kind::Concat(items) => items.iter().for_each(visit),
        Kind::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
            visit(key);
            visit(value);
        }),
        Kind::Negative(of) | Kind::Positive(of) | Kind::Not(of) | Kind::Attribute(of, _) => visit(of),
        Kind::And(left, right) | Kind::Or(left, right) | Kind::Binary(_, left, right) | Kind::Item(left, right) => {
            visit(left);
            visit(right);
        }
        Kind::Compare(first, rest) => {
            visit(first);
            rest.iter().for_each(|(_, expr)| visit(expr));
        }
        Kind::Choice { test, then, otherwise } => {
            visit(test);
            visit(then);
            otherwise.iter().for_each(|expr| visit(expr));
        }
        Kind::Slice(of, parts) => {
            visit(of);
            parts.iter().flatten().for_each(|expr| visit(expr));
        }
        Kind::Call(of, arguments) => {
            visit(of);
            arguments.expressions().for_each(visit);
        }
        Kind::Filter(of, _, arguments) => {
            of.iter().for_each(|expr| visit(expr));
            arguments.expressions().for_each(visit);
        }
        Kind::Test(of, _, arguments) => {
            visit(of);
            arguments.expressions().for_each(visit);
        }
    }
}

/// Whether a name is read in these statements, scopes within them included.
fn mentions(body: &[Stmt], name: &str) -> bool {
    body.iter().any(|statement| match &statement.kind {
        Statement::Text(_) | Statement::Break | Statement::Continue => false,
        Statement::Print(value) => reads(value, name),
        Statement::If { branches, otherwise } => {
            branches.iter().any(|(test, body)| reads(test, name) || mentions(body, name)) || mentions(otherwise, name)
        }
        Statement::For(inner) => {
            reads(&inner.iter, name)
                || inner.test.as_ref().is_some_and(|test| reads(test, name))
                || mentions(&inner.body, name)
                || mentions(&inner.otherwise, name)
        }
        Statement::Set { value, .. } => reads(value, name),
        Statement::SetBlock { filter, body, .. } => {
            filter.as_ref().is_some_and(|filter| reads(filter, name)) || mentions(body, name)
        }
        Statement::With { targets, body, .. } => {
            targets.iter().any(|(_, value)| reads(value, name)) || mentions(body, name)
        }
        Statement::FilterBlock { filter, body, .. } => reads(filter, name) || mentions(body, name),
        Statement::Macro { function, .. } | Statement::Generation(function) => function_mentions(function, name),
        Statement::Call { call, function } => reads(call, name) || function_mentions(function, name),
    })
}

fn function_mentions(function: &Function, name: &str) -> bool {
    let defaults = function.parameters.iter().filter_map(|parameter| parameter.default.as_ref());
    defaults.into_iter().any(|default| reads(default, name)) || mentions(&function.body, name)
}

fn reads(expr: &Expr, name: &str) -> bool {
    if matches!(&expr.kind, Kind::Name(found) if &*found.text == name) {
        return true;
    }
    let mut found = false;
    each_part(expr, &mut |part| found = found || reads(part, name));
    found
}

/// Writes places into the tree. Every name is known to the symbols by then.
struct Placing<'a> {
    symbols: &'a Symbols<'a>,
    /// Whether assignments here are variables of the whole template.
    top: bool,
    /// Whether the code may be passed over, so that Jinja lets it name a filter that does not exist.
    soft: bool,
}

impl Placing<'_> {
    fn statements(&self, body: &mut [Stmt], slots: &mut Slots) -> Result<()> {
        body.iter_mut().try_for_each(|statement| {
            let line = statement.line;
            self.statement(statement, slots).map_err(|error| error.on_line(line))
        })
    }

    fn name(&self, name: &mut Name) -> Result<()> {
        let place = self.symbols.find(&name.text);
        name.place = place.ok_or_else(|| Error::new(format!("the name {} cannot be resolved", name.text)))?;
        Ok(())
    }

    fn statement(&self, statement: &mut Stmt, slots: &mut Slots) -> Result<()> {
        match &mut statement.kind {
            Statement::Text(_) | Statement::Break | Statement::Continue => {}
            Statement::Print(value) => self.expr(value)?,
            Statement::If { branches, otherwise } => {
                let soft = Placing { soft: true, ..*self };
                for (test, body) in branches {
                    soft.expr(test)?;
                    soft.statements(body, slots)?;
                }
                soft.statements(otherwise, slots)?;
            }
            Statement::For(inner) => self.for_loop(Arc::make_mut(inner), slots)?,
            Statement::Set { target, value, top } => {
                self.expr(value)?;
                self.target(target)?;
                *top = self.top;
            }
            Statement::SetBlock { target, filter, body, scope, top } => {
                let mut symbols = self.inner(slots);
                symbols.read_all(body, slots);
                if let Some(filter) = filter {
                    symbols.read_expr(filter, slots);
                }
                *scope = symbols.scope();
                let inner = Placing { symbols: &symbols, top: false, soft: false };
                inner.statements(body, slots)?;
                filter.iter_mut().try_for_each(|filter| inner.expr(filter))?;
                self.target(target)?;
                *top = self.top;
            }
            Statement::With { targets, body, scope } => {
                let mut symbols = self.inner(slots);
                targets.iter().for_each(|(target, _)| symbols.read_parameters(target, slots));
                symbols.read_all(body, slots);
                *scope = symbols.scope();
                let inner = Placing { symbols: &symbols, top: false, soft: false };
                for (target, value) in targets {
                    self.expr(value)?;
                    inner.target(target)?;
                }
                inner.statements(body, slots)?;
            }
            Statement::FilterBlock { filter, body, scope } => {
                let mut symbols = self.inner(slots);
                symbols.read_all(body, slots);
                symbols.read_expr(filter, slots);
                *scope = symbols.scope();
                let inner = Placing { symbols: &symbols, top: false, soft: false };
                inner.statements(body, slots)?;
                inner.expr(filter)?;
            }
            Statement::Macro { name, function, top } => {
                self.name(name)?;
                *top = self.top;
                self.function(Arc::make_mut(function))?;
            }
            Statement::Generation(function) => self.function(Arc::make_mut(function))?,
            Statement::Call { call, function } => {
                self.function(Arc::make_mut(function))?;
                self.expr(call)?;
            }
        }
        Ok(())
    }

    fn inner(&self, slots: &mut Slots) -> Symbols<'_> {
        Symbols::new(Some(self.symbols), slots)
    }

    fn for_loop(&self, inner: &mut For, outer_slots: &mut Slots) -> Result<()> {
        self.expr(&mut inner.iter)?;
        let mut own_slots = Slots::new(self.symbols.depth + 1);
        let slots = if inner.recursive { &mut own_slots } else { outer_slots };
        let mut body = self.inner(slots);
        let loop_used = inner.recursive || mentions(&inner.body, "loop");
        inner.loop_name = loop_used.then(|| body.parameter(&"loop".into(), slots));
        body.read_parameters(&inner.target, slots);
        body.read_all(&inner.body, slots);
        let mut test = self.inner(slots);
        test.read_parameters(&inner.test_target, slots);
        inner.test.iter().for_each(|expr| test.read_expr(expr, slots));
        let mut otherwise = self.inner(slots);
        otherwise.read_all(&inner.otherwise, slots);
        (inner.scope, inner.test_scope, inner.else_scope) = (body.scope(), test.scope(), otherwise.scope());
        let within = |symbols| Placing { symbols, top: false, soft: false };
        within(&body).target(&mut inner.target)?;
        within(&body).statements(&mut inner.body, slots)?;
        within(&test).target(&mut inner.test_target)?;
        inner.test.iter_mut().try_for_each(|expr| within(&test).expr(expr))?;
        within(&otherwise).statements(&mut inner.otherwise, slots)?;
        if inner.recursive {
            (inner.slots, inner.depth) = (own_slots.next, own_slots.depth);
        }
        Ok(())
    }

    fn function(&self, function: &mut Function) -> Result<()> {
        let slots = &mut Slots::new(self.symbols.depth + 1);
        let mut symbols = self.inner(slots);
        for parameter in &mut function.parameters {
            parameter.name = symbols.parameter(&parameter.name.text, slots);
        }
        for parameter in &function.parameters {
            parameter.default.iter().for_each(|default| symbols.read_expr(default, slots));
        }
        let mut special = |name: &str| {
            let given = function.parameters.iter().any(|parameter| &*parameter.name.text == name);
            (!given && mentions(&function.body, name)).then(|| symbols.parameter(&name.into(), slots))
        };
        (function.caller, function.kwargs, function.varargs) =
            (special("caller"), special("kwargs"), special("varargs"));
        symbols.read_all(&function.body, slots);
        function.scope = symbols.scope();
        let inner = Placing { symbols: &symbols, top: false, soft: false };
        for parameter in &mut function.parameters {
            parameter.default.iter_mut().try_for_each(|default| inner.expr(default))?;
        }
        inner.statements(&mut function.body, slots)?;
        (function.slots, function.depth) = (slots.next, slots.depth);
        Ok(())
    }

    fn target(&self, target: &mut Target) -> Result<()> {
        match target {
            Target::Name(name) | Target::Attribute(name, _) => self.name(name),
            Target::Tuple(targets) => targets.iter_mut().try_for_each(|target| self.target(target)),
        }
    }

    fn exprs<'e>(&self, mut exprs: impl Iterator<Item = &'e mut Expr>) -> Result<()> {
        exprs.try_for_each(|expr| self.expr(expr))
    }

    fn expr(&self, expr: &mut Expr) -> Result<()> {
        match &mut expr.kind {
            Kind::Literal(_) => Ok(()),
            Kind::Name(name) => self.name(name),
            Kind::Tuple(items) | Kind::List(items) | Kind::Concat(items) => self.exprs(items.iter_mut()),
            Kind::Dict(pairs) => self.exprs(pairs.iter_mut().flat_map(|(key, value)| [key, value])),
            Kind::Negative(of) | Kind::Positive(of) | Kind::Not(of) | Kind::Attribute(of, _) => self.expr(of),
            Kind::And(left, right) | Kind::Or(left, right) | Kind::Binary(_, left, right) | Kind::Item(left, right) => {
                self.exprs([left, right].into_iter().map(|expr| &mut **expr))
            }
            Kind::Compare(first, rest) => {
                self.exprs(std::iter::once(&mut **first).chain(rest.iter_mut().map(|(_, expr)| expr)))
            }
            Kind::Choice { test, then, otherwise } => {
                let soft = Placing { soft: true, ..*self };
                soft.exprs([test, then].into_iter().chain(otherwise).map(|expr| &mut **expr))
            }
            Kind::Slice(of, parts) => {
                self.exprs(std::iter::once(of).chain(parts.iter_mut().flatten()).map(|expr| &mut **expr))
            }
            Kind::Call(of, arguments) => {
                self.expr(of)?;
                self.exprs(arguments.expressions_mut())
            }
            Kind::Filter(of, name, arguments) => {
                if !self.soft && !filter::is_known(name) {
                    return Err(Error::at(expr.line, format!("no filter named '{name}'")));
                }
                self.exprs(of.iter_mut().map(|expr| &mut **expr))?;
                self.exprs(arguments.expressions_mut())
            }
            Kind::Test(of, name, arguments) => {
                if !self.soft && !test::is_known(name) {
                    return Err(Error::at(expr.line, format!("no test named '{name}'")));
                }
                self.expr(of)?;
                self.exprs(arguments.expressions_mut())
            }
        }
    }
}
