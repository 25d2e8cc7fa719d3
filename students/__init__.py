"""Students: from sizes, from layers of the teacher, from a folder."""
