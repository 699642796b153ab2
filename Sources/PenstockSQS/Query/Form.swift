// SPDX-License-Identifier: Apache-2.0

/// A request of the Query protocol: names and texts from the query string and the body.
///
/// Names are paths such as `MessageAttribute.2.Value.DataType`; here they are a tree.
struct Form {
  /// More than a full batch with all its attributes has.
  static let maximumFields = 10_000
  /// No name of the API has more parts.
  static let maximumDepth = 8

  /// A part of a name. What it holds itself, and what comes after it.
  struct Node {
    var text: [UInt8]?
    /// Places in `nodes`, by name.
    var children: [String: Int] = [:]
  }

  /// The first is the root.
  private(set) var nodes = [Node()]

  /// Reads the query string, then the body of a POST, which wins where both have a name.
  init(_ request: SQSRequest) throws(SQSError) {
    let target = request.target.utf8
    if let mark = target.firstIndex(of: UInt8(ascii: "?")) {
      try add(Array(target[target.index(after: mark)...]))
    }
    if request.method == "POST" { try add(request.body) }
  }

  private mutating func add(_ form: [UInt8]) throws(SQSError) {
    let fields = form.split(separator: UInt8(ascii: "&"), maxSplits: Self.maximumFields)
    guard fields.count <= Self.maximumFields else {
      throw Fields.failure("The form has more than \(Self.maximumFields) fields")
    }
    for field in fields {
      let mark = field.firstIndex(of: UInt8(ascii: "=")) ?? field.endIndex
      let value = mark < field.endIndex ? field[(mark + 1)...] : []
      guard let name = PercentCoding.decode(field[..<mark], plusIsSpace: true),
        let text = PercentCoding.bytes(value, plusIsSpace: true),
        String(validating: text, as: UTF8.self) != nil
      else { throw Fields.failure("A field of the form is not percent-encoded UTF-8") }
      set(name, text)
    }
  }

  private mutating func set(_ name: String, _ text: [UInt8]) {
    let parts = name.split(
      separator: ".", maxSplits: Self.maximumDepth, omittingEmptySubsequences: false)
    guard parts.count <= Self.maximumDepth else { return }
    var place = 0
    for part in parts {
      let key = String(part)
      if let child = nodes[place].children[key] {
        place = child
      } else {
        nodes[place].children[key] = nodes.count
        place = nodes.count
        nodes.append(Node())
      }
    }
    nodes[place].text = text
  }

  /// A field that stands by itself; nil when it is absent.
  subscript(_ name: String) -> String? {
    guard let place = nodes[0].children[name], let text = nodes[place].text else { return nil }
    return String(decoding: text, as: UTF8.self)
  }

  /// The elements of a list in the order of their numbers. One without a number is the only one.
  func elements(of place: Int) -> [Int] {
    let numbered = nodes[place].children.compactMap { key, child in
      Self.number(key).map { (number: $0, child: child) }
    }
    guard numbered.isEmpty else {
      return numbered.sorted { $0.number < $1.number }.map(\.child)
    }
    // `Name=` alone is how older clients write an empty list.
    let isElement = nodes[place].text?.isEmpty == false || !nodes[place].children.isEmpty
    return isElement ? [place] : []
  }

  private static func number(_ text: String) -> Int? {
    text.utf8.count <= 9 && text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 }
      ? Int(text) : nil
  }
}
