// SPDX-License-Identifier: Apache-2.0

/// The executor that the present task prefers, for tasks that it starts and that are no children
/// of it: they stay where it is, in a simulation say. Nil for none, and where nobody can tell.
package func preferredTaskExecutor() -> (any TaskExecutor)? {
  #if compiler(>=6.3) && !canImport(Darwin)
    // unsafe: the reference is used during the call only, within the task that it stands for.
    unsafe withUnsafeCurrentTask { unsafe $0?.unownedTaskExecutor?.asTaskExecutor() }
  #else
    nil
  #endif
}
