//! Expressions at run time.

use std::rc::Rc;

use super::ast::*;
use super::call::Args;
use super::error::{Error, Result, fail};
use super::render::{Env, Render};
use super::string::named;
use super::value::{Dict, Value};
use super::{access, arithmetic, compare, filter, function, limit, method, test};

/// Steps that the time costs, which asks the system for its zone each time.
const CLOCK: usize = 1000;

impl Render {
    pub(crate) fn value(&self, expr: &Expr, env: &Rc<Env>) -> Result<Value> {
        self.spend(1)?;
        match &expr.kind {
            Kind::Literal(literal) => Ok(Value::from(literal)),
            Kind::Name(name) => Ok(env.get(name)),
            _ => self.deeper(|| self.compound(expr, env)).map_err(|error| error.on_line(expr.line)),
        }
    }

    fn values(&self, items: &[Expr], env: &Rc<Env>) -> Result<Vec<Value>> {
        items.iter().map(|item| self.value(item, env)).collect()
    }

    fn compound(&self, expr: &Expr, env: &Rc<Env>) -> Result<Value> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(Value::from(literal)),
            Kind::Name(name) => Ok(env.get(name)),
            Kind::Tuple(items) => Value::tuple(self.values(items, env)?),
            Kind::List(items) => Value::list(self.values(items, env)?),
            Kind::Dict(pairs) => {
                let mut dict = Dict::default();
                for (key, value) in pairs {
                    dict.insert(self.value(key, env)?, self.value(value, env)?)?;
                }
                Ok(Value::Dict(Rc::new(dict)))
            }
            Kind::Negative(of) => arithmetic::negative(&self.value(of, env)?),
            Kind::Positive(of) => arithmetic::positive(&self.value(of, env)?),
            Kind::Not(of) => Ok(Value::Bool(!self.value(of, env)?.truth()?)),
            Kind::And(left, right) => {
                let left = self.value(left, env)?;
                if left.truth()? { self.value(right, env) } else { Ok(left) }
            }
            Kind::Or(left, right) => {
                let left = self.value(left, env)?;
                if left.truth()? { Ok(left) } else { self.value(right, env) }
            }
            Kind::Binary(operator, left, right) => {
                let (left, right) = (self.value(left, env)?, self.value(right, env)?);
                self.made(arithmetic::operate(*operator, &left, &right)?)
            }
            Kind::Compare(first, rest) => self.comparison(first, rest, env),
            Kind::Concat(parts) => self.made(arithmetic::concat(&self.values(parts, env)?)?),
            Kind::Choice { test, then, otherwise } => match (self.value(test, env)?.truth()?, otherwise) {
                (true, _) => self.value(then, env),
                (false, Some(otherwise)) => self.value(otherwise, env),
                (false, None) => {
                    let line = expr.line;
                    Ok(Value::undefined(format!("the inline if-expression on line {line} was false and has no else")))
                }
            },
            Kind::Attribute(of, name) => access::attribute(&self.holder(of, env)?, name),
            Kind::Item(of, key) => access::item(&self.holder(of, env)?, &self.value(key, env)?),
            Kind::Slice(of, parts) => self.slice(of, parts, env),
            Kind::Call(..) => self.call_with(expr, None, env),
            Kind::Filter(Some(of), name, arguments) => {
                let of = self.value(of, env)?;
                let args = self.arguments(arguments, env)?;
                self.made(filter::call(self, name, &of, args)?)
            }
            Kind::Filter(None, ..) => fail("a filter without a value"),
            Kind::Test(of, name, arguments) => {
                let of = self.value(of, env)?;
                test::call(name, &of, self.arguments(arguments, env)?).map(Value::Bool)
            }
        }
    }

    /// A value whose attribute is read.
    fn holder(&self, of: &Expr, env: &Rc<Env>) -> Result<Value> {
        let of = self.value(of, env)?;
        if matches!(of, Value::Namespace(_) | Value::Cycler(_)) {
            self.state_reads.set(self.state_reads.get() + 1);
        }
        Ok(of)
    }

    /// Charges for the size of a new value.
    fn made(&self, value: Value) -> Result<Value> {
        match &value {
            Value::Str(text) | Value::Markup(text) => self.spend(text.len() / 64)?,
            Value::List(seq) | Value::Tuple(seq) => {
                limit::check_items(seq.items.len())?;
                self.spend(seq.items.len())?;
            }
            _ => {}
        }
        Ok(value)
    }

    /// `a < b < c`: each operand is evaluated once, and none after the first that fails.
    fn comparison(&self, first: &Expr, rest: &[(Comparison, Expr)], env: &Rc<Env>) -> Result<Value> {
        let mut left = self.value(first, env)?;
        for (comparison, right) in rest {
            let right = self.value(right, env)?;
            if !compare::compare(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn slice(&self, of: &Expr, parts: &[Option<Box<Expr>>; 3], env: &Rc<Env>) -> Result<Value> {
        let of = self.value(of, env)?;
        let [start, stop, step] = parts;
        let part = |part: &Option<Box<Expr>>| part.as_ref().map(|part| self.value(part, env)).transpose();
        self.made(access::slice(&of, [part(start)?, part(stop)?, part(step)?])?)
    }

    fn arguments(&self, arguments: &Arguments, env: &Rc<Env>) -> Result<Args> {
        let mut args = Args { positional: self.values(&arguments.positional, env)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            args.named.push(((**name).into(), self.value(value, env)?));
        }
        if let Some(rest) = &arguments.rest {
            args.positional.extend(self.value(rest, env)?.items()?);
        }
        if let Some(rest) = &arguments.named_rest {
            let Value::Dict(rest) = self.value(rest, env)? else { return fail("argument after ** must be a mapping") };
            for (name, value) in named(&rest)? {
                if args.named.iter().any(|(other, _)| *other == name) {
                    return fail(format!("got multiple values for keyword argument '{name}'"));
                }
                args.named.push((name, value));
            }
        }
        Ok(args)
    }

    /// A call, with the body of a `call` block where there is one.
    pub(crate) fn call_with(&self, call: &Expr, caller: Option<Value>, env: &Rc<Env>) -> Result<Value> {
        let Kind::Call(of, arguments) = &call.kind else { return fail("expected a call") };
        let of = self.value(of, env)?;
        let mut args = self.arguments(arguments, env)?;
        args.named.extend(caller.map(|caller| ("caller".into(), caller)));
        let result = self.call(&of, args)?;
        self.note(&result);
        self.made(result)
    }

    fn call(&self, of: &Value, args: Args) -> Result<Value> {
        match of {
            Value::Undefined(message) => fail(&**message),
            Value::Macro(function) => self.invoke(function, args).map(Value::from),
            Value::Function(name) => {
                self.spend(if *name == "strftime_now" { CLOCK } else { 0 })?;
                function::call(name, args)
            }
            Value::Joiner(joiner) => joiner.call(args),
            Value::Method(of, name) => match &**of {
                Value::Loop(state) => state.call(name, args),
                Value::Cycler(cycler) => cycler.call(name, args),
                of => method::call(of, name, args),
            },
            Value::Loop(state) => {
                let [items] = args.bind("loop", ["iterable"])?;
                match (&state.recurse, items) {
                    (Some((inner, outer)), Some(items)) => {
                        self.recursive(inner, outer, items, state.depth0 + 1).map(Value::from)
                    }
                    (None, _) => fail("the loop must have the 'recursive' marker to be called recursively"),
                    _ => fail("loop misses the argument 'iterable'"),
                }
            }
            other => fail(format!("'{}' object is not callable", other.type_name())),
        }
    }

    /// The filters of a block on its text.
    pub(crate) fn filter_block(&self, filter: &Expr, text: Value, env: &Rc<Env>) -> Result<Value> {
        let Kind::Filter(of, name, arguments) = &filter.kind else {
            return Err(Error::new("expected a filter"));
        };
        let of = match of {
            Some(of) => self.filter_block(of, text, env)?,
            None => text,
        };
        let args = self.arguments(arguments, env)?;
        filter::call(self, name, &of, args).map_err(|error| error.on_line(filter.line))
    }
}
