// SPDX-License-Identifier: Apache-2.0
#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// How many files this process may have open.
enum FileLimit {
  /// What connections leave to the store, the event loops and the rest of the program. A store
  /// that cannot open its next segment takes no more messages.
  static let reserve = 256

  /// The most connections that the limit of the process has room for; a few in any case.
  static var connections: Int {
    #if canImport(Glibc)
      let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
      let resource = RLIMIT_NOFILE
    #endif
    var limit = rlimit()
    // Unlimited is more than an Int holds.
    let files = getrlimit(resource, &limit) == 0 ? Int(min(limit.rlim_cur, 1 << 30)) : 1024
    return max(16, files - reserve)
  }
}
