//! A whole fabric in network namespaces of one Linux machine, with real agents and real routers.
