"""Where LLVM optimises: once, in the kernel that Python calls, with all that it calls.

Numba makes a library of each function: it links the libraries of all that the function calls, optimises the whole, and makes machine code of it,
even where only other functions call it, each of which optimises and translates the same code again. Half of the time of a first solve went there.
So each kernel has two compilers. For other kernels it becomes a `Part`, LLVM's IR that is only linked; for Python a `Whole`, linked from all the
parts below it.
"""

import copy
import zlib
from functools import cache

from llvmlite import binding
from numba.core import codegen, compiler
from numba.core.compiler import CompileResult
from numba.core.dispatcher import _FunctionCompiler
from numba.core.environment import lookup_environment
from numba.core.registry import CPUDispatcher

from .diskcache import KernelImpl


def below(libraries):
    """These libraries and the parts that they call, each once."""
    found: dict[codegen.CodeLibrary, None] = {}
    waiting = list(reversed(libraries))
    while waiting:
        library = waiting.pop()
        if library not in found:
            found[library] = None
            if isinstance(library, Part):
                waiting += reversed(library._linking_libraries)
    return list(found)


class Part(codegen.JITCodeLibrary):
    """A function for others to link: not optimised with what it calls, and without machine code."""

    _joined = None

    def _optimize_functions(self, ll_module):
        """As much as makes the functions small, and lets numba see which counts of references it can leave out."""
        ll_module.data_layout = self._codegen._data_layout
        passes = self._codegen._pass_builder(opt=1, loop_vectorize=False, slp_vectorize=False)
        for function in ll_module.functions:
            if not function.is_declaration:
                manager = binding.create_new_function_pass_manager()
                manager.add_sroa_pass()
                manager.add_instruction_combine_pass()
                manager.add_simplify_cfg_pass()
                manager.add_refprune_pass()
                manager.run(function, passes)

    def finalize(self):
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        for library in self._linking_libraries:
            self._dynamic_globals += library._dynamic_globals
            self._reload_init.update(library._reload_init)
        self._finalized = True

    def own_module(self):
        """Its functions alone."""
        return super()._get_module_for_linking()

    def _get_module_for_linking(self):
        """With all below it, for a function that is not compiled here and for the disk."""
        self._ensure_finalized()
        if self._joined is None:
            first, *others = below([self])
            self._joined = first.own_module().clone()
            link(self._joined, others)
        return self._joined


class Whole(codegen.JITCodeLibrary):
    """A function for Python, with all that it calls."""

    def _optimize_final_module(self):
        """A second time too: a loop of known length comes apart into registers once it is inlined. Else problems in lanes take twice as long."""
        super()._optimize_final_module()
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def finalize(self):
        libraries = below(self._linking_libraries)
        self._linking_libraries: list[codegen.CodeLibrary] = []
        for library in libraries:
            self._reload_init.update(library._reload_init)
        link(self._final_module, libraries)
        super().finalize()
        for variable in self._final_module.global_variables:  # those of the parts had no address so far
            environment = lookup_environment(variable.name) if variable.name.startswith("_ZN08NumbaEnv") else None
            if environment is not None:
                self._codegen.set_env(variable.name, environment)


def link(module, libraries):
    """Link libraries into a module."""
    for library in libraries:
        module.link_in(library.own_module() if isinstance(library, Part) else library._get_module_for_linking(), preserve=True)


@cache
def parts_of(context):
    """The same context of compilation, but libraries are parts: what numba makes for a function beside its own, as for a loop over threads."""
    made = copy.copy(context.codegen())
    made._library_class = Part
    return context.subtarget(_internal_codegen=made)


def compiled(own, args, return_type, library_class, **flags):
    """The result of numba's compiler for a dispatcher's own one, in a library of that class; it cannot be called yet."""
    context = parts_of(own.targetdescr.target_context)
    chosen = compiler.Flags()
    own.targetdescr.options.parse_as_flags(chosen, own.targetoptions)
    chosen.no_compile = True
    for name, value in flags.items():
        setattr(chosen, name, value)
    library = library_class(own.targetdescr.target_context.codegen(), own.py_func.__qualname__)
    library.enable_object_caching()
    return compiler.compile_extra(
        own.targetdescr.typing_context, context, own.py_func, args, return_type, chosen, own.locals, library, pipeline_class=own.pipeline_class
    )


class WholeCompiler(_FunctionCompiler):
    """Compiles a kernel for Python."""

    def _compile_core(self, args, return_type):
        context = self.targetdescr.target_context
        made = compiled(self, args, return_type, Whole)
        function = context.get_executable(made.library, made.fndesc, made.environment)
        return made._replace(target_context=context, entry_point=function, reload_init=list(made.library._reload_init))


class Token:
    """Stands for a part in numba's table of functions."""


class PartCompiler(_FunctionCompiler):
    """Compiles a kernel for other kernels."""

    def _compile_core(self, args, return_type):
        context = self.targetdescr.target_context
        made = compiled(self, args, return_type, Part, no_cpython_wrapper=True)
        made.library._ensure_finalized()
        made = made._replace(target_context=context, entry_point=Token(), reload_init=list(made.library._reload_init))
        context.insert_user_function(made.entry_point, made.fndesc, [made.library])
        return made


class Parts(CPUDispatcher):
    """The parts of a kernel: what numba knows as a function that is called from compiled code alone."""

    def __init__(self, kernel):
        super().__init__(kernel.py_func, kernel.locals, kernel.targetoptions)
        self._compiler.__class__ = PartCompiler

    def add_overload(self, cres):
        self.overloads[tuple(cres.signature.args)] = cres  # and not in the table for calls from Python


class PartOnDisk(KernelImpl):
    """A part as numba's cache of results keeps it: with all below it, for others may have been compiled anew since."""

    def reduce(self, data):
        data.fndesc.typemap = data.fndesc.calltypes = None
        code = zlib.compress(data.library._get_module_for_linking().as_bitcode(), 1)
        return data.library.name, code, data.fndesc, data.environment, data.signature, tuple(data.reload_init)

    def rebuild(self, target_context, payload):
        name, code, fndesc, environment, signature, reload_init = payload
        for run in reload_init:
            run()
        library = Part(target_context.codegen(), name)
        library._final_module = binding.parse_bitcode(zlib.decompress(code))
        library._reload_init.update(reload_init)
        library._finalized = True
        return CompileResult(
            target_context=target_context,
            typing_context=target_context.typing_context,
            library=library,
            environment=environment,
            entry_point=Token(),
            fndesc=fndesc,
            type_annotation="",
            signature=signature,
            objectmode=False,
            lifted=(),
            typing_error=None,
            call_helper=None,
            metadata=None,
            reload_init=reload_init,
            referenced_envs=(),
        )
