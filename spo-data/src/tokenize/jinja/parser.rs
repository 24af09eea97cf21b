//! Statements of a template.

use std::sync::Arc;

use super::ast::*;
use super::error::{Error, Result};
use super::lexer::{Placed, Token};

/// Deepest nesting of blocks and expressions together.
const MAX_DEPTH: usize = 120;

/// Tags of Jinja that need other templates, or that change what is escaped.
const REFUSED: [&str; 7] = ["include", "import", "from", "extends", "block", "autoescape", "trans"];

pub(super) struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    /// Loops around the statement, within its macro.
    loops: usize,
}

pub(crate) fn parse(tokens: Vec<Placed>) -> Result<Vec<Stmt>> {
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0 };
    let (body, _) = parser.statements(&[])?;
    Ok(body)
}

impl Parser {
    pub(super) fn token(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |placed| &placed.token)
    }

    pub(super) fn next_token(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |placed| &placed.token)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |placed| placed.line)
    }

    pub(super) fn take(&mut self) -> Token {
        let token = self.token().clone();
        self.at += 1;
        token
    }

    pub(super) fn is_op(&self, operator: &str) -> bool {
        matches!(self.token(), Token::Op(found) if *found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.token(), Token::Name(found) if found == name)
    }

    pub(super) fn skip_op(&mut self, operator: &str) -> bool {
        let found = self.is_op(operator);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.token() {
            Token::End => "the end of the template".to_string(),
            Token::BlockEnd => "'%}'".to_string(),
            Token::PrintEnd => "'}}'".to_string(),
            Token::Op(operator) => format!("'{operator}'"),
            Token::Name(name) => format!("'{name}'"),
            other => format!("{other:?}"),
        };
        Err(Error::at(self.line(), format!("expected {expected}, found {found}")))
    }

    pub(super) fn expect_op(&mut self, operator: &'static str) -> Result<()> {
        if self.skip_op(operator) { Ok(()) } else { self.unexpected(&format!("'{operator}'")) }
    }

    pub(super) fn expect_name(&mut self) -> Result<Arc<str>> {
        match self.token() {
            Token::Name(name) => {
                let name = name.as_str().into();
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn expect(&mut self, token: &Token, spelled: &str) -> Result<()> {
        if self.token() != token {
            return self.unexpected(spelled);
        }
        self.at += 1;
        Ok(())
    }

    /// Runs a part of the parser one level deeper.
    pub(super) fn deeper<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::at(self.line(), format!("blocks and expressions are nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        result
    }

    /// Statements up to one of the tags `ends`, whose name is passed and returned.
    fn statements(&mut self, ends: &[&'static str]) -> Result<(Vec<Stmt>, &'static str)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.take() {
                Token::Text(text) => body.push(Stmt { kind: Statement::Text(text), line }),
                Token::PrintBegin => {
                    let value = self.tuple(true, &[], false)?;
                    self.expect(&Token::PrintEnd, "'}}'")?;
                    body.push(Stmt { kind: Statement::Print(value), line });
                }
                Token::BlockBegin => {
                    if let Some(end) = ends.iter().find(|end| self.is_name(end)) {
                        self.at += 1;
                        return Ok((body, end));
                    }
                    self.deeper(|parser| parser.statement(line, &mut body))?;
                    self.expect(&Token::BlockEnd, "'%}'")?;
                }
                Token::End if ends.is_empty() => return Ok((body, "")),
                _ => {
                    self.at -= 1;
                    return self.unexpected(&format!("{{% {} %}}", ends.join(" %} or {% ")));
                }
            }
        }
    }

    /// The body of a block, after the rest of its opening tag.
    fn body(&mut self, ends: &[&'static str]) -> Result<(Vec<Stmt>, &'static str)> {
        self.skip_op(":");
        self.expect(&Token::BlockEnd, "'%}'")?;
        self.statements(ends)
    }

    fn statement(&mut self, line: u32, body: &mut Vec<Stmt>) -> Result<()> {
        let tag = self.expect_name()?;
        let kind = match &*tag {
            "for" => self.for_loop()?,
            "if" => self.condition()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => {
                let name = self.expect_name()?;
                let parameters = self.signature()?;
                let function = self.function(parameters, "endmacro")?;
                Statement::Macro { name: unplaced(name), function, top: false }
            }
            "call" => {
                let parameters = if self.is_op("(") { self.signature()? } else { Vec::new() };
                let call = self.expression(true)?;
                if !matches!(call.kind, Kind::Call(..)) {
                    return Err(Error::at(line, "expected a call"));
                }
                Statement::Call { call, function: self.function(parameters, "endcall")? }
            }
            "generation" => Statement::Generation(self.function(Vec::new(), "endgeneration")?),
            "filter" => {
                let filter = self.filters(None, true)?;
                let (inner, _) = self.body(&["endfilter"])?;
                Statement::FilterBlock { filter, body: inner, scope: Scope::default() }
            }
            "print" => {
                while *self.token() != Token::BlockEnd {
                    let value = self.expression(true)?;
                    body.push(Stmt { kind: Statement::Print(value), line });
                    if !self.skip_op(",") {
                        break;
                    }
                }
                return Ok(());
            }
            "break" | "continue" if self.loops == 0 => {
                return Err(Error::at(line, format!("'{tag}' outside of a loop")));
            }
            "break" => Statement::Break,
            "continue" => Statement::Continue,
            refused if REFUSED.contains(&refused) => {
                return Err(Error::unsupported(format!("the tag '{refused}'")).on_line(line));
            }
            _ => return Err(Error::at(line, format!("unknown tag '{tag}'"))),
        };
        body.push(Stmt { kind, line });
        Ok(())
    }

    fn for_loop(&mut self) -> Result<Statement> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return self.unexpected("'in'");
        }
        let iter = self.tuple(false, &["recursive"], false)?;
        let test = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let (body, end) = body?;
        let otherwise = if end == "else" { self.body(&["endfor"])?.0 } else { Vec::new() };
        let test_target = target.clone();
        let scopes = (Scope::default(), Scope::default(), Scope::default());
        let (scope, test_scope, else_scope) = scopes;
        let (loop_name, slots, depth) = (None, 0, 0);
        Ok(Statement::For(Arc::new(For {
            target,
            iter,
            test,
            recursive,
            body,
            otherwise,
            loop_name,
            scope,
            test_target,
            test_scope,
            else_scope,
            slots,
            depth,
        })))
    }

    fn condition(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false, &[], false)?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end {
                "elif" => {}
                "else" => return Ok(Statement::If { branches, otherwise: self.body(&["endif"])?.0 }),
                _ => return Ok(Statement::If { branches, otherwise: Vec::new() }),
            }
        }
    }

    fn set(&mut self) -> Result<Statement> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            return Ok(Statement::Set { target, value: self.tuple(true, &[], false)?, top: false });
        }
        let filter = if self.is_op("|") { Some(self.filters(None, false)?) } else { None };
        let (body, _) = self.body(&["endset"])?;
        Ok(Statement::SetBlock { target, filter, body, scope: Scope::default(), top: false })
    }

    fn with(&mut self) -> Result<Statement> {
        let mut targets = Vec::new();
        while *self.token() != Token::BlockEnd && !self.is_op(":") {
            if !targets.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_op("=")?;
            targets.push((target, self.expression(true)?));
        }
        let (body, _) = self.body(&["endwith"])?;
        Ok(Statement::With { targets, body, scope: Scope::default() })
    }

    fn signature(&mut self) -> Result<Vec<Parameter>> {
        let mut parameters: Vec<Parameter> = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = unplaced(self.expect_name()?);
            let default = if self.skip_op("=") { Some(self.expression(true)?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|before| before.default.is_some()) {
                return Err(Error::at(self.line(), "a parameter without a default follows one with a default"));
            }
            parameters.push(Parameter { name, default });
        }
        self.expect_op(")")?;
        Ok(parameters)
    }

    fn function(&mut self, parameters: Vec<Parameter>, end: &'static str) -> Result<Arc<Function>> {
        let loops = std::mem::take(&mut self.loops);
        let body = self.body(&[end]);
        self.loops = loops;
        let (scope, caller, kwargs, varargs) = (Scope::default(), None, None, None);
        Ok(Arc::new(Function { parameters, body: body?.0, scope, caller, kwargs, varargs, slots: 0, depth: 0 }))
    }

    /// What is assigned to: names, tuples of them, or (in `set`) an attribute of a namespace.
    fn target(&mut self, ends: &[&str], namespace: bool) -> Result<Target> {
        let line = self.line();
        let expr = self.simple_tuple(ends, namespace)?;
        as_target(expr, namespace).ok_or_else(|| Error::at(line, "cannot assign to this expression"))
    }
}

pub(super) fn unplaced(text: Arc<str>) -> Name {
    Name { text, place: Place::default() }
}

fn as_target(expr: Expr, namespace: bool) -> Option<Target> {
    match expr.kind {
        Kind::Name(name) => Some(Target::Name(name)),
        Kind::Attribute(of, name) if namespace => match of.kind {
            Kind::Name(of) => Some(Target::Attribute(of, name)),
            _ => None,
        },
        Kind::Tuple(items) => {
            items.into_iter().map(|item| as_target(item, namespace)).collect::<Option<Vec<_>>>().map(Target::Tuple)
        }
        _ => None,
    }
}
