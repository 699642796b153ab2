// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import NIOCore
internal import PenstockSystem
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// Files that belong together, such as a certificate and its key, and who takes what is in them.
public struct WatchedFiles: Sendable {
  /// Where they are. Links are followed.
  public var paths: [String]
  /// Larger files are not read.
  public var maximumBytes: Int
  /// Takes the bytes of all of them, in the order of `paths`: once before the server listens, and
  /// again whenever one has changed. An error ends the start; later it is logged, and what was
  /// taken before stays. Called on one thread at a time; not after `stop` has returned.
  public var apply: @Sendable (_ contents: [[UInt8]]) throws -> Void

  /// Files to watch.
  public init(
    _ paths: [String], maximumBytes: Int = 1 << 20,
    apply: @escaping @Sendable (_ contents: [[UInt8]]) throws -> Void
  ) {
    self.paths = paths
    self.maximumBytes = maximumBytes
    self.apply = apply
  }
}

/// Looks at files again and again on a thread of its own, and hands over what changed.
///
/// Whether a file changed is told by its size, its inode and the time of its last change. Files
/// that changed are read when all of a group are the same at two looks: by then those that belong
/// together have all been replaced, and a later change has another time.
final class FileWatcher: Sendable {
  /// Why a file was not read.
  struct Failure: Error, CustomStringConvertible {
    var description: String
  }

  private let bell = Doorbell()
  private let state = Mutex(State())

  private struct State {
    var isRunning = false
    var isStopping = false
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  /// Reads and applies all files, then watches them until `stop`.
  ///
  /// - Throws: what `apply` throws, or why a file cannot be read.
  init(_ groups: [WatchedFiles], every interval: Duration, _ logger: Logger) throws {
    var watches: [Watch] = []
    for group in groups {
      var watch = Watch(group)
      try watch.begin()
      watches.append(watch)
    }
    guard !watches.isEmpty else { return }
    let nanoseconds = UInt64(max(interval.timeAmount.nanoseconds, 1_000_000))
    state.withLock { $0.isRunning = true }
    do {
      _ = try SystemThread(name: "penstock-watch") { [self, watches] in
        var watches = watches
        while !bell.wait(nanoseconds: nanoseconds) {
          for place in watches.indices { watches[place].look(logger) }
        }
        end()
      }
    } catch {
      state.withLock { $0.isRunning = false }
      throw error
    }
  }

  /// Returns when nothing is applied any more.
  func stop() async {
    bell.ring()
    await withCheckedContinuation { continuation in
      let isRunning = state.withLock { state in
        if state.isRunning { state.waiting.append(continuation) }
        return state.isRunning
      }
      if !isRunning { continuation.resume() }
    }
  }

  private func end() {
    let waiting = state.withLock { state in
      state.isRunning = false
      defer { state.waiting = [] }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }
}

/// What is known of some files that belong together.
private struct Watch {
  /// What tells one content of a file from another.
  private struct Signature: Equatable {
    var device: UInt64
    var inode: UInt64
    var size: Int64
    var seconds: Int
    var nanoseconds: Int

    init(_ status: stat) {
      device = UInt64(truncatingIfNeeded: status.st_dev)
      inode = UInt64(truncatingIfNeeded: status.st_ino)
      size = Int64(status.st_size)
      #if canImport(Darwin)
        let time = status.st_mtimespec
      #else
        let time = status.st_mtim
      #endif
      seconds = time.tv_sec
      nanoseconds = time.tv_nsec
    }
  }

  private let files: WatchedFiles
  private var signatures: [Signature?] = []
  /// What was handed over last, also if it was not taken.
  private var contents: [[UInt8]] = []
  /// Whether they may have changed since they were read; also what came with the first read.
  private var isChanging = true
  private var lastProblem: String?

  init(_ files: WatchedFiles) { self.files = files }

  mutating func begin() throws {
    signatures = files.paths.map(Self.signature)
    contents = try read()
    try files.apply(contents)
  }

  mutating func look(_ logger: Logger) {
    let now = files.paths.map(Self.signature)
    if now != signatures {
      (signatures, isChanging) = (now, true)
      return
    }
    guard isChanging else { return }
    do {
      let read = try read()
      isChanging = false
      guard read != contents else { return }
      contents = read
      lastProblem = nil
      try files.apply(read)
      logger.notice("took a changed file", metadata: ["files": "\(paths)"])
    } catch {
      // What cannot be read is tried again at each look.
      if "\(error)" != lastProblem {
        logger.error(
          "a changed file was not taken; what was there before stays",
          metadata: ["files": "\(paths)", "error": "\(error)"])
      }
      lastProblem = "\(error)"
    }
  }

  private var paths: String { files.paths.joined(separator: ", ") }

  private static func signature(_ path: String) -> Signature? {
    var status = stat()
    return stat(path, &status) == 0 ? Signature(status) : nil
  }

  private func read() throws -> [[UInt8]] {
    try files.paths.map { try Self.read($0, files.maximumBytes) }
  }

  /// A file's bytes. A pipe or a device is none.
  private static func read(_ path: String, _ maximumBytes: Int) throws -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw failure(path, errno) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw failure(path, errno) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw FileWatcher.Failure(description: "\(path) is no file")
    }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = part.withUnsafeMutableBytes {
        #if canImport(Glibc)
          Glibc.read(file, $0.baseAddress, $0.count)
        #elseif canImport(Musl)
          Musl.read(file, $0.baseAddress, $0.count)
        #else
          Darwin.read(file, $0.baseAddress, $0.count)
        #endif
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw failure(path, errno) }
      guard count > 0 else { return bytes }
      bytes += part[..<count]
      guard bytes.count <= maximumBytes else {
        throw FileWatcher.Failure(description: "\(path) is larger than \(maximumBytes) bytes")
      }
    }
  }

  private static func failure(_ path: String, _ code: CInt) -> FileWatcher.Failure {
    FileWatcher.Failure(description: "cannot read \(path): \(String(cString: strerror(code)))")
  }
}
