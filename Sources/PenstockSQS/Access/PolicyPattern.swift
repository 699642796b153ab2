// SPDX-License-Identifier: Apache-2.0

/// Texts with the wildcards `*` and `?`, as bytes in which two that UTF-8 never uses stand for the
/// wildcards. What a variable brings along is therefore never taken for one.
enum Glob {
  static let anyRun: UInt8 = 0xff
  static let anyCharacter: UInt8 = 0xfe

  /// True when the pattern describes the whole text.
  ///
  /// - Complexity: at most the product of both lengths: only the last run is ever tried again.
  static func matches(
    _ pattern: ArraySlice<UInt8>, _ text: Substring.UTF8View, ignoringCase: Bool = false
  ) -> Bool {
    bytes(of: text) { text in
      pattern.withUnsafeBufferPointer { matches($0, text[...], ignoringCase) }
    }
  }

  /// Native strings lend their bytes; others are copied.
  static func bytes(
    of text: Substring.UTF8View, _ body: (UnsafeBufferPointer<UInt8>) -> Bool
  ) -> Bool {
    text.withContiguousStorageIfAvailable(body) ?? Array(text).withUnsafeBufferPointer(body)
  }

  static func matches(
    _ pattern: UnsafeBufferPointer<UInt8>, _ slice: Slice<UnsafeBufferPointer<UInt8>>,
    _ ignoringCase: Bool = false
  ) -> Bool {
    let text = UnsafeBufferPointer(rebasing: slice)
    var next = 0
    var position = 0
    var retry: (next: Int, position: Int)?
    func isSame(_ code: UInt8, _ byte: UInt8) -> Bool {
      code == (ignoringCase ? lowercase(byte) : byte)
    }
    while position < text.count {
      if next < pattern.count {
        let code = pattern[next]
        if code == anyRun {
          next += 1
          let rest = pattern[next...]
          if !rest.contains(where: { $0 >= anyCharacter }) {
            // Nothing but the end of the text can match.
            return text.count - position >= rest.count
              && zip(rest, text.suffix(rest.count)).allSatisfy(isSame)
          }
          retry = (next, position)
          continue
        }
        if code == anyCharacter {
          next += 1
          position = afterCharacter(position, text)
          continue
        }
        if isSame(code, text[position]) {
          next += 1
          position += 1
          continue
        }
      }
      guard var last = retry else { return false }
      last.position = afterCharacter(last.position, text)
      retry = last
      (next, position) = last
    }
    return pattern[next...].allSatisfy { $0 == anyRun }
  }

  private static func afterCharacter(
    _ position: Int, _ text: UnsafeBufferPointer<UInt8>
  ) -> Int {
    var position = position + 1
    while position < text.count, text[position] & 0xc0 == 0x80 { position += 1 }
    return position
  }

  static func lowercase(_ byte: UInt8) -> UInt8 {
    byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
  }
}

/// A text of a policy: characters, wildcards, and variables such as `${aws:PrincipalAccount}` whose
/// values each request brings along.
struct PolicyPattern: Sendable {
  private enum Piece: Sendable {
    case bytes([UInt8])
    case variable(ContextKey)
  }

  private var pieces: [Piece] = []
  private let ignoresCase: Bool

  /// - Parameters:
  ///   - wildcards: whether `*` and `?` stand for other characters.
  ///   - variables: whether `${…}` is a variable, as since version 2012-10-17.
  /// - Throws: for a variable that is not closed, or that has a default value.
  init(
    _ text: String, wildcards: Bool, variables: Bool, ignoresCase: Bool = false
  ) throws(PolicyError) {
    self.ignoresCase = ignoresCase
    var run: [UInt8] = []
    var rest = (ignoresCase ? text.lowercased() : text).utf8[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "$"), variables, rest.first == UInt8(ascii: "{") {
        guard let end = rest.firstIndex(of: UInt8(ascii: "}")) else {
          throw PolicyError("a variable without an end")
        }
        let name = String(Substring(rest[..<end].dropFirst()))
        rest = rest[end...].dropFirst()
        switch name {
        case "*", "?", "$": run.append(contentsOf: name.utf8)
        case _ where name.utf8.contains(UInt8(ascii: ",")):
          throw PolicyError("default values of variables are not supported")
        case "": throw PolicyError("a variable without a name")
        default:
          pieces.append(.bytes(run))
          pieces.append(.variable(ContextKey(name)))
          run = []
        }
      } else if byte == UInt8(ascii: "*"), wildcards {
        if run.last != Glob.anyRun { run.append(Glob.anyRun) }
      } else if byte == UInt8(ascii: "?"), wildcards {
        run.append(Glob.anyCharacter)
      } else {
        run.append(byte)
      }
    }
    pieces.append(.bytes(run))
  }

  /// The bytes when they are the same for each request.
  var fixed: [UInt8]? {
    guard pieces.count == 1, case .bytes(let bytes) = pieces[0] else { return nil }
    return bytes
  }

  /// The bytes to compare a text with; nil when the request lacks a variable or the values of the
  /// variables are longer than the text. Then the pattern does not match.
  func bytes(for request: AccessRequest, comparedWith text: String) -> [UInt8]? {
    if let fixed { return fixed }
    var result: [UInt8] = []
    var room = text.utf8.count
    for piece in pieces {
      switch piece {
      case .bytes(let bytes): result += bytes
      case .variable(let key):
        guard case .one(let value) = request.value(of: key) else { return nil }
        let bytes = (ignoresCase ? value.lowercased() : value).utf8
        room -= bytes.count
        guard room >= 0 else { return nil }
        result += bytes
      }
    }
    return result
  }
}

/// A pattern for ARNs: wildcards stay within their part, of which the sixth takes all the rest.
struct ARNPattern: Sendable {
  private enum Form: Sendable {
    /// `*` alone.
    case anything
    /// Six parts.
    case parts([ArraySlice<UInt8>])
    /// Nothing that an ARN could look like.
    case nothing
    case variable(PolicyPattern)
  }

  private let form: Form

  init(_ pattern: PolicyPattern) {
    form = pattern.fixed.map(Self.form) ?? .variable(pattern)
  }

  /// A pattern that stops early with a `*` goes on with one in each part that is missing.
  private static func form(_ bytes: [UInt8]) -> Form {
    if bytes == [Glob.anyRun] { return .anything }
    var parts = bytes.split(
      separator: UInt8(ascii: ":"), maxSplits: 5, omittingEmptySubsequences: false)
    if parts.count < 6, parts.last?.last == Glob.anyRun {
      parts += Array(repeating: [Glob.anyRun], count: 6 - parts.count)
    }
    return parts.count == 6 ? .parts(parts) : .nothing
  }

  func matches(_ text: String, for request: AccessRequest) -> Bool {
    switch form {
    case .anything: return true
    case .nothing: return false
    case .parts(let parts): return Self.matches(parts, text)
    case .variable(let pattern):
      guard let bytes = pattern.bytes(for: request, comparedWith: text) else { return false }
      switch Self.form(bytes) {
      case .anything: return true
      case .parts(let parts): return Self.matches(parts, text)
      case .nothing, .variable: return false
      }
    }
  }

  private static func matches(_ parts: [ArraySlice<UInt8>], _ text: String) -> Bool {
    Glob.bytes(of: text[...].utf8) { text in
      var start = 0
      for part in parts.dropLast() {
        guard let colon = text[start...].firstIndex(of: UInt8(ascii: ":")),
          part.withUnsafeBufferPointer({ Glob.matches($0, text[start..<colon]) })
        else { return false }
        start = colon + 1
      }
      return parts.last?.withUnsafeBufferPointer { Glob.matches($0, text[start...]) } ?? false
    }
  }
}
