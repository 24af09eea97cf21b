//! Runs the statements of a template.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::*;
use super::call::Args;
use super::error::{Error, Result, fail};
use super::function::{self, Macro};
use super::limit;
use super::looping::Loop;
use super::value::Value;

/// Steps a template may take: real ones need a few thousand per conversation; an endless loop stops here.
const FUEL: u64 = 5_000_000;
/// Bytes of text that cost one step.
const BYTES_PER_STEP: usize = 64;
/// Deepest nesting of blocks, expressions and macro calls while they run.
const MAX_DEPTH: u32 = 400;

/// The variables of the template or of one call of a macro.
pub(crate) struct Env {
    depth: u16,
    slots: RefCell<Vec<Option<Value>>>,
    outer: Option<Rc<Env>>,
}

impl Env {
    fn new(depth: u16, slots: u32, outer: Option<Rc<Env>>) -> Rc<Self> {
        Rc::new(Self { depth, slots: RefCell::new(vec![None; slots as usize]), outer })
    }

    fn at<T>(&self, place: Place, visit: impl FnOnce(&mut Option<Value>) -> T) -> T {
        let mut env = self;
        while env.depth > place.depth {
            match &env.outer {
                Some(outer) => env = outer,
                None => break,
            }
        }
        visit(&mut env.slots.borrow_mut()[place.slot as usize])
    }

    pub(crate) fn get(&self, name: &Name) -> Value {
        let found = self.at(name.place, |slot| slot.clone());
        found.unwrap_or_else(|| Value::undefined(format!("'{}' is undefined", name.text)))
    }

    fn set(&self, place: Place, value: Option<Value>) {
        self.at(place, |slot| *slot = value);
    }
}

/// Where the statements go on.
#[derive(PartialEq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
}

/// One render of a template.
pub(crate) struct Render {
    variables: RefCell<HashMap<Rc<str>, Value>>,
    fuel: Cell<u64>,
    depth: Cell<u32>,
    /// How often a namespace or a cycler was looked at.
    pub(crate) state_reads: Cell<u64>,
    /// Texts that are kept aside now: set blocks, macros and filters.
    captures: Cell<u32>,
    spans: RefCell<Vec<Range<usize>>>,
    /// Whether a generation block stood where its place in the text is not known.
    span_lost: Cell<bool>,
    /// Variables that a macro holds, and that hold the macro: they are emptied at the end.
    held: RefCell<Vec<Rc<Env>>>,
    spaces: RefCell<Vec<Value>>,
}

/// A rendered text with the byte ranges of its generation blocks; `None` where they cannot be told.
pub(crate) type Rendered = (String, Option<Vec<Range<usize>>>);

pub(crate) fn render(tree: &Tree, variables: HashMap<Rc<str>, Value>) -> Result<Rendered> {
    let render = Render {
        variables: RefCell::new(variables),
        fuel: Cell::new(FUEL),
        depth: Cell::new(0),
        state_reads: Cell::new(0),
        captures: Cell::new(0),
        spans: RefCell::default(),
        span_lost: Cell::new(false),
        held: RefCell::default(),
        spaces: RefCell::default(),
    };
    let env = Env::new(0, tree.slots, None);
    let mut out = String::new();
    render.enter(&tree.scope, &env);
    let result = render.statements(&tree.body, &env, &mut out);
    render.held.take().iter().for_each(|env| drop(env.slots.take()));
    for space in render.spaces.take() {
        if let Value::Namespace(space) = space {
            space.clear();
        }
    }
    result?;
    let spans = render.spans.take();
    Ok((out, (!render.span_lost.get()).then_some(spans)))
}

impl Render {
    pub(crate) fn spend(&self, steps: usize) -> Result<()> {
        let left = self.fuel.get().checked_sub(steps as u64);
        self.fuel.set(left.ok_or_else(|| Error::new("the template ran out of fuel: it takes too many steps"))?);
        Ok(())
    }

    /// Runs a part one level deeper.
    pub(crate) fn deeper<T>(&self, part: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.depth.get() >= MAX_DEPTH {
            return fail("the template is nested too deep: a macro may call itself without end");
        }
        self.depth.set(self.depth.get() + 1);
        let result = part();
        self.depth.set(self.depth.get() - 1);
        result
    }

    /// Gives the variables of a scope what they begin with.
    fn enter(&self, scope: &Scope, env: &Env) {
        for (name, load) in &scope.loads {
            match load {
                Load::Parameter => {}
                Load::Missing => env.set(name.place, None),
                Load::Outer(place) => env.set(name.place, env.at(*place, |slot| slot.clone())),
                Load::Context => env.set(name.place, self.lookup(&name.text)),
            }
        }
    }

    /// A variable of the render, or a function that Jinja and transformers give every template.
    fn lookup(&self, name: &str) -> Option<Value> {
        let found = self.variables.borrow().get(name).cloned();
        found.or_else(|| function::NAMES.iter().find(|known| **known == name).map(|known| Value::Function(known)))
    }

    pub(crate) fn write(&self, text: &str, out: &mut String) -> Result<()> {
        self.spend(text.len() / BYTES_PER_STEP)?;
        limit::check_bytes(out.len() + text.len())?;
        out.push_str(text);
        Ok(())
    }

    /// Runs statements whose text is kept aside.
    fn capture(&self, run: impl FnOnce(&mut String) -> Result<Flow>) -> Result<(String, Flow)> {
        self.captures.set(self.captures.get() + 1);
        let mut text = String::new();
        let flow = run(&mut text);
        self.captures.set(self.captures.get() - 1);
        Ok((text, flow?))
    }

    pub(crate) fn statements(&self, body: &[Stmt], env: &Rc<Env>, out: &mut String) -> Result<Flow> {
        for statement in body {
            let flow =
                self.deeper(|| self.statement(statement, env, out)).map_err(|error| error.on_line(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&self, statement: &Stmt, env: &Rc<Env>, out: &mut String) -> Result<Flow> {
        self.spend(1)?;
        match &statement.kind {
            Statement::Text(text) => self.write(text, out)?,
            Statement::Print(value) => self.write(&self.value(value, env)?.print()?, out)?,
            Statement::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.value(test, env)?.truth()? {
                        return self.statements(body, env, out);
                    }
                }
                return self.statements(otherwise, env, out);
            }
            Statement::For(inner) => {
                let items = self.value(&inner.iter, env)?;
                if inner.recursive {
                    let text = self.recursive(inner, env, items, 0)?;
                    self.write(&text, out)?;
                } else {
                    self.for_loop(inner, env, items, 0, out)?;
                }
            }
            Statement::Set { target, value, top } => {
                let value = self.value(value, env)?;
                self.assign(target, value, env, *top)?;
            }
            Statement::SetBlock { target, filter, body, scope, top } => {
                return self.set_block(target, filter.as_ref(), body, scope, *top, env);
            }
            Statement::With { targets, body, scope } => {
                let values = targets.iter().map(|(_, value)| self.value(value, env)).collect::<Result<Vec<_>>>()?;
                self.enter(scope, env);
                for ((target, _), value) in targets.iter().zip(values) {
                    self.assign(target, value, env, false)?;
                }
                return self.statements(body, env, out);
            }
            Statement::FilterBlock { filter, body, scope } => {
                self.enter(scope, env);
                let (text, flow) = self.capture(|text| self.statements(body, env, text))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                self.write(&self.filter_block(filter, text.into(), env)?.print()?, out)?;
            }
            Statement::Macro { name, function, top } => {
                let value = self.function(Some(name.text.clone()), function, env);
                self.assign(&Target::Name(name.clone()), value, env, *top)?;
            }
            Statement::Call { call, function } => {
                let caller = self.function(None, function, env);
                self.write(&self.call_with(call, Some(caller), env)?.print()?, out)?;
            }
            Statement::Generation(function) => self.generation(function, env, out)?,
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn set_block(
        &self,
        target: &Target,
        filter: Option<&Expr>,
        body: &[Stmt],
        scope: &Scope,
        top: bool,
        env: &Rc<Env>,
    ) -> Result<Flow> {
        self.enter(scope, env);
        let (text, flow) = self.capture(|text| self.statements(body, env, text))?;
        if flow == Flow::Next {
            let text = Value::from(text);
            let value = match filter {
                Some(filter) => self.filter_block(filter, text, env)?,
                None => text,
            };
            self.assign(target, value, env, top)?;
        }
        Ok(flow)
    }

    fn assign(&self, target: &Target, value: Value, env: &Rc<Env>, top: bool) -> Result<()> {
        match target {
            Target::Name(name) => {
                if top {
                    self.variables.borrow_mut().insert((*name.text).into(), value.clone());
                }
                env.set(name.place, Some(value));
                Ok(())
            }
            Target::Attribute(name, attribute) => match env.get(name) {
                Value::Namespace(space) => space.set((**attribute).into(), value),
                Value::Undefined(message) => fail(&*message),
                _ => fail("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                let items = value.items()?;
                if items.len() != targets.len() {
                    return fail(format!("expected {} values to unpack, got {}", targets.len(), items.len()));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item, env, top))
            }
        }
    }

    /// Remembers a namespace, so that it lets go of its values in the end.
    pub(crate) fn note(&self, value: &Value) {
        if matches!(value, Value::Namespace(_)) {
            self.spaces.borrow_mut().push(value.clone());
        }
    }

    fn function(&self, name: Option<Arc<str>>, function: &Arc<Function>, env: &Rc<Env>) -> Value {
        self.held.borrow_mut().push(env.clone());
        Value::Macro(Rc::new(Macro { name, function: function.clone(), env: env.clone() }))
    }

    fn generation(&self, function: &Arc<Function>, env: &Rc<Env>, out: &mut String) -> Result<()> {
        let body = Macro { name: None, function: function.clone(), env: env.clone() };
        let text = self.invoke(&body, Args::default())?;
        if self.captures.get() > 0 {
            self.span_lost.set(true);
        } else {
            self.spans.borrow_mut().push(out.len()..out.len() + text.len());
        }
        self.write(&text, out)
    }

    /// Whether an item passes the condition of a loop.
    fn passes(&self, inner: &For, test: &Expr, item: &Value, env: &Rc<Env>) -> Result<bool> {
        self.spend(1)?;
        self.assign(&inner.test_target, item.clone(), env, false)?;
        self.enter(&inner.test_scope, env);
        self.value(test, env)?.truth()
    }

    fn for_loop(&self, inner: &Arc<For>, env: &Rc<Env>, of: Value, depth0: usize, out: &mut String) -> Result<()> {
        let mut items = of.items_later()?;
        // With `loop` the items that pass are known before the first turn; without, each is tested before its turn.
        if let (Some(test), true) = (&inner.test, inner.loop_name.is_some()) {
            let reads = self.state_reads.get();
            let mut kept = Vec::new();
            for item in items {
                if self.passes(inner, test, &item, env)? {
                    kept.push(item);
                }
            }
            items = kept;
            if self.state_reads.get() != reads {
                return Err(Error::unsupported("the condition of a loop that reads a namespace while 'loop' is used"));
            }
        }
        let recurse = inner.recursive.then(|| (inner.clone(), env.outer.clone().unwrap_or_else(|| env.clone())));
        let state = Rc::new(Loop::new(items, depth0, recurse)?);
        let (mut empty, mut broken) = (true, false);
        for (index, item) in state.items.iter().enumerate() {
            self.spend(1)?;
            match &inner.loop_name {
                Some(name) => {
                    state.index0.set(index);
                    env.set(name.place, Some(Value::Loop(state.clone())));
                }
                None => match &inner.test {
                    Some(test) if !self.passes(inner, test, item, env)? => continue,
                    _ => {}
                },
            }
            empty = false;
            self.assign(&inner.target, item.clone(), env, false)?;
            self.enter(&inner.scope, env);
            if self.statements(&inner.body, env, out)? == Flow::Break {
                broken = true;
                break;
            }
        }
        if let (Value::Iterator(iter), false) = (&of, broken) {
            iter.lent.set(false);
        }
        if let Some(name) = &inner.loop_name {
            env.set(name.place, None);
        }
        if empty {
            self.enter(&inner.else_scope, env);
            self.statements(&inner.otherwise, env, out)?;
        }
        Ok(())
    }

    /// One level of a recursive loop, a function with variables of its own.
    pub(crate) fn recursive(&self, inner: &Arc<For>, outer: &Rc<Env>, items: Value, depth0: usize) -> Result<String> {
        let env = Env::new(inner.depth, inner.slots, Some(outer.clone()));
        let run = |text: &mut String| {
            self.for_loop(inner, &env, items, depth0, text)?;
            Ok(Flow::Next)
        };
        self.capture(run).map(|(text, _)| text)
    }

    /// Calls a macro: arguments by place, then by name, then defaults.
    pub(crate) fn invoke(&self, of: &Macro, mut args: Args) -> Result<String> {
        let function = &of.function;
        let name = of.name.as_deref().unwrap_or("caller");
        let env = Env::new(function.depth, function.slots, Some(of.env.clone()));
        let extra = args.positional.split_off(args.positional.len().min(function.parameters.len()));
        let mut positional = args.positional.into_iter();
        let mut given_caller = false;
        for parameter in &function.parameters {
            let named = |args: &mut Vec<(Rc<str>, Value)>| {
                let at = args.iter().position(|(name, _)| **name == *parameter.name.text)?;
                Some(args.remove(at).1)
            };
            let value = positional.next().or_else(|| named(&mut args.named));
            given_caller |= &*parameter.name.text == "caller";
            env.set(parameter.name.place, value);
        }
        if let Some(caller) = &function.caller {
            let at = args.named.iter().position(|(name, _)| &**name == "caller").filter(|_| !given_caller);
            let value = at.map(|at| args.named.remove(at).1).filter(|value| !matches!(value, Value::None));
            env.set(caller.place, Some(value.unwrap_or_else(|| Value::undefined("No caller defined"))));
        }
        match &function.kwargs {
            Some(kwargs) => {
                let pairs = args.named.into_iter().map(|(name, value)| (Value::Str(name), value));
                env.set(kwargs.place, Some(Value::dict(pairs)?));
            }
            None => {
                if let Some((keyword, _)) = args.named.first() {
                    return fail(format!("macro '{name}' takes no keyword argument '{keyword}'"));
                }
            }
        }
        match &function.varargs {
            Some(varargs) => env.set(varargs.place, Some(Value::tuple(extra)?)),
            None if extra.is_empty() => {}
            None => {
                let most = function.parameters.len();
                return fail(format!("macro '{name}' takes not more than {most} argument(s)"));
            }
        }
        self.enter(&function.scope, &env);
        for parameter in &function.parameters {
            if env.at(parameter.name.place, |slot| slot.is_none()) {
                let value = match &parameter.default {
                    Some(default) => self.value(default, &env)?,
                    None => Value::undefined(format!("parameter '{}' was not provided", parameter.name.text)),
                };
                env.set(parameter.name.place, Some(value));
            }
        }
        self.capture(|text| self.statements(&function.body, &env, text)).map(|(text, _)| text)
    }
}
