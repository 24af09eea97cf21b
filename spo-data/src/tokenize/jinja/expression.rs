//! Expressions of a template, by falling precedence.

use super::ast::*;
use super::error::{Error, Result};
use super::lexer::Token;
use super::parser::{Parser, unplaced};

type Part = fn(&mut Parser) -> Result<Expr>;

impl Parser {
    /// One expression; `choice` allows `… if … else …` outside parentheses.
    pub(super) fn expression(&mut self, choice: bool) -> Result<Expr> {
        self.deeper(|parser| if choice { parser.choice() } else { parser.or() })
    }

    /// One expression, or several with commas as a tuple, up to the end of the tag or one of `ends`.
    pub(super) fn tuple(&mut self, choice: bool, ends: &[&str], parentheses: bool) -> Result<Expr> {
        self.tuple_of(ends, parentheses, &mut |parser| parser.expression(choice))
    }

    /// As [`Parser::tuple`], of names and literals only.
    pub(super) fn simple_tuple(&mut self, ends: &[&str], namespace: bool) -> Result<Expr> {
        self.tuple_of(ends, false, &mut |parser| {
            let line = parser.line();
            let name = parser.deeper(Self::primary)?;
            if namespace && matches!(name.kind, Kind::Name(_)) && parser.skip_op(".") {
                let kind = Kind::Attribute(Box::new(name), parser.expect_name()?);
                return Ok(Expr { kind, line });
            }
            Ok(name)
        })
    }

    fn tuple_of(
        &mut self,
        ends: &[&str],
        parentheses: bool,
        item: &mut dyn FnMut(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let line = self.line();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = matches!(self.token(), Token::PrintEnd | Token::BlockEnd)
                || self.is_op(")")
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                break;
            }
            items.push(item(self)?);
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            None if !parentheses => self.unexpected("an expression"),
            last => {
                items.extend(last);
                Ok(Expr { kind: Kind::Tuple(items), line })
            }
        }
    }

    fn choice(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut expr = self.or()?;
        while self.skip_name("if") {
            let test = Box::new(self.or()?);
            let otherwise = if self.skip_name("else") { Some(Box::new(self.deeper(Self::choice)?)) } else { None };
            expr = Expr { kind: Kind::Choice { test, then: Box::new(expr), otherwise }, line };
        }
        Ok(expr)
    }

    fn or(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_name("or") {
            left = Expr { kind: Kind::Or(Box::new(left), Box::new(self.and()?)), line };
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_name("and") {
            left = Expr { kind: Kind::And(Box::new(left), Box::new(self.not()?)), line };
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.skip_name("not") {
            return Ok(Expr { kind: Kind::Not(Box::new(self.deeper(Self::not)?)), line });
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparison() {
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr { kind: Kind::Compare(Box::new(first), rest), line } })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let (length, comparison) = match self.token() {
            Token::Op("==") => (1, Comparison::Equal),
            Token::Op("!=") => (1, Comparison::NotEqual),
            Token::Op("<") => (1, Comparison::Less),
            Token::Op("<=") => (1, Comparison::LessEqual),
            Token::Op(">") => (1, Comparison::Greater),
            Token::Op(">=") => (1, Comparison::GreaterEqual),
            Token::Name(name) if name == "in" => (1, Comparison::In),
            Token::Name(name) if name == "not" && matches!(self.next_token(), Token::Name(name) if name == "in") => {
                (2, Comparison::NotIn)
            }
            _ => return None,
        };
        (0..length).for_each(|_| drop(self.take()));
        Some(comparison)
    }

    fn binary(&mut self, operators: &[(&str, Operator)], part: Part) -> Result<Expr> {
        let line = self.line();
        let mut left = part(self)?;
        while let Some((_, operator)) = operators.iter().find(|(spelled, _)| self.is_op(spelled)) {
            self.take();
            left = Expr { kind: Kind::Binary(*operator, Box::new(left), Box::new(part(self)?)), line };
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", Operator::Add), ("-", Operator::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut parts = vec![self.product()?];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => {
                parts.extend(last);
                Expr { kind: Kind::Concat(parts), line }
            }
        })
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
        self.binary(&operators, |parser| parser.binary(&[("**", Operator::Pow)], |parser| parser.unary(true)))
    }

    fn unary(&mut self, filters: bool) -> Result<Expr> {
        let line = self.line();
        let mut expr = if self.skip_op("-") {
            Expr { kind: Kind::Negative(Box::new(self.deeper(|parser| parser.unary(false))?)), line }
        } else if self.skip_op("+") {
            Expr { kind: Kind::Positive(Box::new(self.deeper(|parser| parser.unary(false))?)), line }
        } else {
            self.primary()?
        };
        expr = self.postfix(expr)?;
        if filters { self.filters_and_tests(expr) } else { Ok(expr) }
    }

    pub(super) fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.token().clone() {
            Token::Name(name) => {
                self.take();
                match name.as_str() {
                    "true" | "True" => Kind::Literal(Literal::Bool(true)),
                    "false" | "False" => Kind::Literal(Literal::Bool(false)),
                    "none" | "None" => Kind::Literal(Literal::None),
                    name => Kind::Name(unplaced(name.into())),
                }
            }
            Token::Str(mut text) => {
                self.take();
                while let Token::Str(more) = self.token() {
                    text += more;
                    self.take();
                }
                Kind::Literal(Literal::Str(text.into()))
            }
            Token::Int(value) => {
                self.take();
                Kind::Literal(Literal::Int(value))
            }
            Token::Float(value) => {
                self.take();
                Kind::Literal(Literal::Float(value))
            }
            Token::Op("(") => {
                self.take();
                let inner = self.tuple(true, &[], true)?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            Token::Op("[") => {
                self.take();
                Kind::List(self.items("]", |parser| parser.expression(true))?)
            }
            Token::Op("{") => {
                self.take();
                Kind::Dict(self.items("}", |parser| {
                    let key = parser.expression(true)?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression(true)?))
                })?)
            }
            _ => return self.unexpected("an expression"),
        };
        Ok(Expr { kind, line })
    }

    fn items<T>(&mut self, end: &'static str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn postfix(&mut self, mut expr: Expr) -> Result<Expr> {
        // A chain of a hundred thousand dots would be a tree too deep to walk.
        for _ in 0..200 {
            let line = self.line();
            let of = Box::new(expr);
            let kind = if self.skip_op(".") {
                match self.take() {
                    Token::Name(name) => Kind::Attribute(of, name.into()),
                    Token::Int(index) => {
                        let index = Expr { kind: Kind::Literal(Literal::Int(index)), line };
                        Kind::Item(of, Box::new(index))
                    }
                    _ => return Err(Error::at(line, "expected a name or a number after '.'")),
                }
            } else if self.skip_op("[") {
                self.subscript(of)?
            } else if self.is_op("(") {
                Kind::Call(of, self.arguments()?)
            } else {
                return Ok(*of);
            };
            expr = Expr { kind, line };
        }
        Err(Error::at(self.line(), "too many attributes and calls in a row"))
    }

    fn subscript(&mut self, of: Box<Expr>) -> Result<Kind> {
        let part = |parser: &mut Self| -> Result<Option<Box<Expr>>> {
            if parser.is_op(":") || parser.is_op("]") || parser.is_op(",") {
                return Ok(None);
            }
            parser.expression(true).map(|expr| Some(Box::new(expr)))
        };
        let start = part(self)?;
        let kind = if self.skip_op(":") {
            let stop = part(self)?;
            let step = if self.skip_op(":") { part(self)? } else { None };
            Kind::Slice(of, [start, stop, step])
        } else {
            match start {
                Some(index) => Kind::Item(of, index),
                None => return self.unexpected("a subscript"),
            }
        };
        if self.is_op(",") {
            return Err(Error::unsupported("a subscript of several parts").on_line(self.line()));
        }
        self.expect_op("]")?;
        Ok(kind)
    }

    fn arguments(&mut self) -> Result<Arguments> {
        let line = self.line();
        let mut arguments = Arguments::default();
        let invalid = || Err(Error::at(line, "invalid syntax for function call expression"));
        self.expect_op("(")?;
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("*") {
                if arguments.rest.is_some() || arguments.named_rest.is_some() {
                    return invalid();
                }
                arguments.rest = Some(Box::new(self.expression(true)?));
            } else if self.skip_op("**") {
                if arguments.named_rest.is_some() {
                    return invalid();
                }
                arguments.named_rest = Some(Box::new(self.expression(true)?));
            } else if matches!(self.token(), Token::Name(_)) && *self.next_token() == Token::Op("=") {
                if arguments.named_rest.is_some() {
                    return invalid();
                }
                let name = self.expect_name()?;
                self.expect_op("=")?;
                if arguments.named.iter().any(|(other, _)| *other == name) {
                    return Err(Error::at(line, format!("keyword argument {name} is repeated")));
                }
                arguments.named.push((name, self.expression(true)?));
            } else {
                if arguments.rest.is_some() || arguments.named_rest.is_some() || !arguments.named.is_empty() {
                    return invalid();
                }
                arguments.positional.push(self.expression(true)?);
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?.to_string();
        while self.skip_op(".") {
            name = name + "." + &self.expect_name()?;
        }
        Ok(name)
    }

    fn filters_and_tests(&mut self, mut expr: Expr) -> Result<Expr> {
        for _ in 0..200 {
            let line = self.line();
            expr = if self.is_op("|") {
                self.filter(Some(expr))?
            } else if self.skip_name("is") {
                self.test(expr, line)?
            } else if self.is_op("(") {
                Expr { kind: Kind::Call(Box::new(expr), self.arguments()?), line }
            } else {
                return Ok(expr);
            };
        }
        Err(Error::at(self.line(), "too many filters and tests in a row"))
    }

    fn filter(&mut self, of: Option<Expr>) -> Result<Expr> {
        self.skip_op("|");
        let line = self.line();
        let name = self.dotted_name()?.into();
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(Expr { kind: Kind::Filter(of.map(Box::new), name, arguments), line })
    }

    /// The filters of a block: the first stands without a value, and in a `filter` tag (`inline`) without a bar.
    pub(super) fn filters(&mut self, of: Option<Expr>, inline: bool) -> Result<Expr> {
        let mut filters =
            if inline || self.is_op("|") { self.filter(of)? } else { return self.unexpected("a filter") };
        for _ in 0..200 {
            if !self.is_op("|") {
                return Ok(filters);
            }
            filters = self.filter(Some(filters))?;
        }
        Err(Error::at(self.line(), "too many filters in a row"))
    }

    fn test(&mut self, of: Expr, line: u32) -> Result<Expr> {
        let negated = self.skip_name("not");
        let name = self.dotted_name()?.into();
        let arguments = if self.is_op("(") {
            self.arguments()?
        } else if self.starts_operand() {
            if self.is_name("is") {
                return Err(Error::at(line, "tests with 'is' cannot be chained"));
            }
            let operand = self.primary()?;
            Arguments { positional: vec![self.postfix(operand)?], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Expr { kind: Kind::Test(Box::new(of), name, arguments), line };
        Ok(if negated { Expr { kind: Kind::Not(Box::new(test)), line } } else { test })
    }

    /// Whether the argument of a test follows without parentheses.
    fn starts_operand(&self) -> bool {
        match self.token() {
            Token::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        }
    }
}
