//! The tree of a template, with the place of every variable resolved.

use std::sync::Arc;

/// Where a variable lives: `depth` counts nested macros, `slot` the variables of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) depth: u16,
    pub(crate) slot: u32,
}

/// A variable by name; its place is found once the whole template is read.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) text: Arc<str>,
    pub(crate) place: Place,
}

/// What a variable of a scope holds when the scope begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// Given by the scope: a loop's target, a macro's parameter.
    Parameter,
    /// Looked up among the variables of the render.
    Context,
    /// What the same name has further out.
    Outer(Place),
    /// Nothing yet.
    Missing,
}

/// The variables that a scope has of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) loads: Vec<(Name, Load)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

/// Arguments of a call, a filter or a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expr>,
    pub(crate) named: Vec<(Arc<str>, Expr)>,
    pub(crate) rest: Option<Box<Expr>>,
    pub(crate) named_rest: Option<Box<Expr>>,
}

impl Arguments {
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let rest = [&self.rest, &self.named_rest].into_iter().flatten().map(|expr| &**expr);
        self.positional.iter().chain(self.named.iter().map(|(_, expr)| expr)).chain(rest)
    }

    pub(crate) fn expressions_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let rest = [&mut self.rest, &mut self.named_rest].into_iter().flatten().map(|expr| &mut **expr);
        self.positional.iter_mut().chain(self.named.iter_mut().map(|(_, expr)| expr)).chain(rest)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) kind: Kind,
    pub(crate) line: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Name(Name),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Concat(Vec<Expr>),
    /// `then if test else otherwise`
    Choice {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Arguments),
    /// Without a value, the filter of a block.
    Filter(Option<Box<Expr>>, Arc<str>, Arguments),
    Test(Box<Expr>, Arc<str>, Arguments),
}

/// What an assignment writes to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Name(Name),
    /// An attribute of a namespace.
    Attribute(Name, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: Name,
    pub(crate) default: Option<Expr>,
}

/// A macro, or the body of a `call` block.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
    /// `caller`, `kwargs` and `varargs`, where the body reads them.
    pub(crate) caller: Option<Name>,
    pub(crate) kwargs: Option<Name>,
    pub(crate) varargs: Option<Name>,
    pub(crate) slots: u32,
    pub(crate) depth: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Vec<Stmt>,
    pub(crate) otherwise: Vec<Stmt>,
    /// The variable `loop`, where the body reads it.
    pub(crate) loop_name: Option<Name>,
    pub(crate) scope: Scope,
    pub(crate) test_target: Target,
    pub(crate) test_scope: Scope,
    pub(crate) else_scope: Scope,
    /// A recursive loop is a function of its own.
    pub(crate) slots: u32,
    pub(crate) depth: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct Stmt {
    pub(crate) kind: Statement,
    pub(crate) line: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Statement {
    Text(String),
    Print(Expr),
    If {
        branches: Vec<(Expr, Vec<Stmt>)>,
        otherwise: Vec<Stmt>,
    },
    For(Arc<For>),
    Set {
        target: Target,
        value: Expr,
        top: bool,
    },
    SetBlock {
        target: Target,
        filter: Option<Expr>,
        body: Vec<Stmt>,
        scope: Scope,
        top: bool,
    },
    With {
        targets: Vec<(Target, Expr)>,
        body: Vec<Stmt>,
        scope: Scope,
    },
    FilterBlock {
        filter: Expr,
        body: Vec<Stmt>,
        scope: Scope,
    },
    Macro {
        name: Name,
        function: Arc<Function>,
        top: bool,
    },
    Call {
        call: Expr,
        function: Arc<Function>,
    },
    /// The block that only transformers knows; it is a function as a `call` block is.
    Generation(Arc<Function>),
    Break,
    Continue,
}

/// A whole template.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
    pub(crate) slots: u32,
}
